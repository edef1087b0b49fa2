"""A training run to look into: its checkpoints in order, and those that cannot be read, each with the reason."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open

from audit_core.classifier import Classifier, pick_device
from audit_core.data import DATASETS
from audit_core.errors import BadCheckpoint, BadData, InvalidParameter
from audit_core.i2x.analysis import Analysis
from models.cards import UNKNOWN, ModelCard
from models.checkpoint import CheckpointError, build_timm, load_custom, load_into, read_checkpoint, size_option
from models.runs import MANIFEST as RUN_MANIFEST
from models.runs import Saved, read_manifest

FILES = "*.safetensors"


@dataclass(frozen=True)
class Facts:
    """What opens a checkpoint besides its weights; see :func:`models.checkpoint.load_custom`."""

    architecture: str
    classes: tuple[str, ...] = ()
    input_size: tuple[int, int] | None = None
    channels: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    encoding: str = ""


@dataclass(frozen=True)
class TrainingRun:
    """A folder of checkpoints of one architecture.

    saved: those that can be read, by step; broken: (file, reason) of the others; data: what it was trained on as a
    registered data set, empty where nobody said.
    """

    folder: Path
    facts: Facts
    saved: tuple[Saved, ...]
    broken: tuple[tuple[str, str], ...]
    data: str = ""
    seed: int | None = None
    _card: list[ModelCard] = field(default_factory=list, repr=False, compare=False)  # of the first that was opened

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def steps(self) -> tuple[int, ...]:
        """Training steps of the readable checkpoints, rising."""
        return tuple(saved.step for saved in self.saved)

    def classifier(self, step: int, device: str = "cpu") -> Classifier:
        """The model as it was at ``step``; ``BadCheckpoint`` names the file that does not load."""
        saved = next((entry for entry in self.saved if entry.step == step), None)
        if saved is None:
            raise InvalidParameter(f"{self.name} has no checkpoint of step {step}; it has {_listed(self.steps)}")
        path, facts = self.folder / saved.file, self.facts
        try:
            if self._card:
                return self._again(path, step, device)
            loaded = load_custom(
                path.read_bytes(),
                f"{self.name} step {step}",
                facts.architecture,
                len(facts.classes) or None,
                facts.channels,
                facts.input_size[0] if facts.input_size else None,
                facts.mean or None,
                facts.std or None,
                facts.classes or None,
            )
        except OSError as error:
            raise BadCheckpoint(f"{saved.file} cannot be read ({error.strerror}); restore it or leave it out") from None
        except CheckpointError as error:
            raise BadCheckpoint(str(error)) from None
        card = dataclasses.replace(loaded.card, encoding=facts.encoding or UNKNOWN)
        self._card.append(card)
        return Classifier(card, loaded.module, pick_device(device))

    def _again(self, path: Path, step: int, device: str) -> Classifier:
        """Other weights in the architecture that was described once: layers and readout are the same."""
        first, data = self._card[0], path.read_bytes()
        name = f"{self.name} step {step}"
        asked, own = self.facts.input_size, first.input_size
        fixed = asked[0] if asked else size_option(first.architecture, own[0])
        module = build_timm(first.architecture, len(first.classes), first.channels, fixed)
        load_into(module, read_checkpoint(data, path.name).tensors, name)
        card = dataclasses.replace(first, name=name, weights_sha256=hashlib.sha256(data).hexdigest())
        return Classifier(card, module.float().eval(), pick_device(device))

    def final(self, device: str = "cpu") -> Classifier:
        """The model of the last checkpoint that loads: the one whose features make the prototypes."""
        for step in reversed(self.steps):
            try:
                return self.classifier(step, device)
            except BadCheckpoint as reason:
                told = reason
        raise BadData(f"{self.name}: no checkpoint loads ({told})")

    def checked(self) -> TrainingRun:
        """The same run with the checkpoints that really load; what does not is ``broken``."""
        good, broken = [], list(self.broken)
        for saved in self.saved:
            try:
                self.classifier(saved.step)
                good.append(saved)
            except BadCheckpoint as reason:
                broken.append((saved.file, str(reason)))
        if not good:
            raise BadData(f"{self.name}: no checkpoint loads ({broken[-1][1]})")
        return dataclasses.replace(self, saved=tuple(good), broken=tuple(broken))


def open_run(folder: str | Path, facts: Facts | None = None) -> TrainingRun:
    """Open what ``python -m models train --save-every`` wrote, or any folder of checkpoints of one architecture.

    facts: needed where the folder has no ``run.json``; the step is then the last number in a file's name.
    ``BadData`` when there are fewer than two readable checkpoints: there is no transition to explain.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise BadData(f"{folder} is no folder; give the folder that holds the checkpoints of one training run")
    data, seed = "", None
    if facts is None:
        try:
            manifest = read_manifest(folder)
        except ValueError as error:
            raise BadData(f"{error}; for a folder without run.json give the architecture") from None
        listed: Sequence[Saved] = manifest.checkpoints
        facts = Facts(manifest.architecture, manifest.classes, manifest.input_size, manifest.channels,
                      manifest.mean, manifest.std, manifest.encoding)  # fmt: skip
        data, seed = _registered(manifest.data.source if manifest.data else ""), manifest.seed
    else:
        listed = _listing(folder)
    broken = [(saved.file, reason) for saved in listed if (reason := _unreadable(folder / saved.file))]
    bad = {file for file, _ in broken}
    good = tuple(sorted((saved for saved in listed if saved.file not in bad), key=lambda saved: saved.step))
    if len(good) < 2:
        reasons = "; ".join(f"{file}: {reason}" for file, reason in broken) or "no other checkpoint was found"
        raise BadData(f"{folder.name} has {len(good)} readable checkpoints, a transition needs two ({reasons})")
    return TrainingRun(folder, facts, good, tuple(broken), data, seed)


def run_of(analysis: Analysis, root: Path) -> TrainingRun:
    """The run that the analysis in ``root`` was made of; ``BadData`` where it is no longer there."""
    raw = analysis.manifest
    folder = (root / str(raw.get("run") or "nowhere")).resolve()
    if not folder.is_dir():
        raise BadData(
            f"the training run of {analysis.name} is not where it was when it was analysed; put it back, or run the "
            "same audit_core i2x command again"
        )
    if (folder / RUN_MANIFEST).is_file():
        return open_run(folder)
    facts = dict(raw["facts"])
    lists = {name: tuple(facts[name]) for name in ("classes", "mean", "std")}
    size = tuple(facts["input_size"]) if facts["input_size"] else None
    return open_run(folder, Facts(**{**facts, **lists, "input_size": size}))


def _registered(source: str) -> str:
    """``mnist:FOLDER`` of the training command as a data set's words, ``mnist:path=FOLDER``; "" for wafer files."""
    name, _, folder = source.partition(":")
    if name not in DATASETS:
        return ""
    return f"{name}:path={folder}" if folder else name


def _listing(folder: Path) -> list[Saved]:
    found = []
    for path in sorted(folder.glob(FILES)):
        if numbers := re.findall(r"\d+", path.stem):
            found.append(Saved(int(numbers[-1]), path.name))
    if len({saved.step for saved in found}) < len(found):
        raise BadData(f"two files of {folder.name} end in the same number; name each after its training step")
    return found


def _unreadable(path: Path) -> str:
    """Why a file holds no tensors, from its header and length alone; "" when it is well."""
    if not path.is_file():
        return "the file is missing"
    try:
        with safe_open(path, framework="pt") as file:
            return "" if list(file.keys()) else "it holds no tensor"
    except (SafetensorError, OSError) as error:
        return f"not a whole safetensors file ({str(error).splitlines()[0][:80]})"


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))
