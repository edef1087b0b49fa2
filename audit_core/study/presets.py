"""Ready-made studies: what the paper's protocol comes to on WM-811K, on MVTec AD, and on any folder of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from audit_core.errors import InvalidParameter
from audit_core.study.definition import Checks, CurveSettings, Entry, ImageSet, Study
from audit_core.study.plan import open_member
from audit_core.workbench import Workbench
from models import zoo
from models.cards import ModelCard

CONTROLS = ("random", "input-intensity", "centre-prior", "edges")
CHECKS = Checks(("parameter-randomisation", "rotation-stability"), per_class=1)
CRITERIA = {"metric": "srg", "beats_random_by": 0.0, "share_of_fills": 0.8}


def wm811k(data: str, entries: Sequence[Entry], bench: Workbench) -> Study:
    """The paper's native-readout audit (arXiv 2605.14255): 22 held-out maps of each class, zero and blur fill.

    Added: the fills whose absence the paper names as a limit, controls, and maps matched in resolution.
    """
    return Study(
        title="Native-readout audit on WM-811K",
        checkpoints=_with_native(entries or tuple(Entry(name) for name in zoo.names()), bench, matched=True),
        explainers=("rise:n_masks=4000,settle=1", *CONTROLS),
        fills=("zero", "blur:sigma=3", "dataset-mean", "reference", "road"),
        images=ImageSet(f"wm811k:path={data}", "test", per_class=22),
        checks=CHECKS,
        criteria=CRITERIA,
        note="The split test needs lot names in the file; without them use split all and a file of held-out maps.",
    )


def mvtec(data: str, entries: Sequence[Entry], bench: Workbench) -> Study:
    """The paper's boundary study on MVTec AD, pooled good against defective, on images kept out of training."""
    if not entries:
        raise InvalidParameter(
            "no checkpoint for MVTec AD ships with the project; name yours: --checkpoint vit.safetensors=ARCHITECTURE"
        )
    return Study(
        title="Boundary study on MVTec AD",
        checkpoints=_with_native(entries, bench),
        explainers=("rise:n_masks=4000,settle=1", *CONTROLS),
        fills=("zero", "blur:sigma=10", "image-mean", "road"),
        images=ImageSet(f"mvtec:path={data}", "test", per_class=100),
        checks=replace(CHECKS, per_class=4),
        criteria=CRITERIA,
        note="One pooled binary task; the split test keeps the audited images out of training (seed 0, 70/15/15).",
    )


def folder(data: str, entries: Sequence[Entry], bench: Workbench) -> Study:
    """A first study of any checkpoint on any folder of images."""
    if not entries:
        raise InvalidParameter("a folder needs your checkpoint: --checkpoint weights.safetensors=ARCHITECTURE")
    return Study(
        title=f"Audit of {Path(data).name}",
        checkpoints=_with_native(entries, bench),
        explainers=("rise:n_masks=1000", *CONTROLS),
        fills=("zero", "image-mean", "blur:sigma=10", "road"),
        images=ImageSet(f"folder:path={data}", "all", per_class=20),
        curves=CurveSettings(),
        criteria=CRITERIA,
    )


PRESETS: dict[str, Callable[[str, Sequence[Entry], Workbench], Study]] = {
    "wm811k": wm811k,
    "mvtec": mvtec,
    "folder": folder,
}


def demo() -> Study:
    """Small, synthetic and finished in minutes on two cores; needs nothing but the project."""
    return Study(
        title="Demonstration on synthetic wafer maps",
        checkpoints=(Entry("wafer-resnet18-cbam", explainers=("grad-cam", "grad-cam:layer=stage2")),
                     Entry("wafer-densenet121", explainers=("grad-cam", "grad-cam:layer=stage2")),
                     Entry("wafer-swin-tiny", explainers=("grad-cam",)),
                     Entry("wafer-vit-tiny", explainers=("rollout",))),
        explainers=CONTROLS,
        fills=("zero", "blur:sigma=3", "reference"),
        images=ImageSet("synthetic", "sample", per_class=3),
        curves=CurveSettings(steps=10),
        criteria=CRITERIA,
    )  # fmt: skip


def native(card: ModelCard) -> tuple[str, ...]:
    """The explainer that the paper's rule pairs with a readout: rollout for a class token, else Grad-CAM."""
    if card.attention == "global" and card.readout in ("CLS token", "distillation token"):
        return ("rollout",)
    return ("grad-cam",) if card.feature_layers else ()


def matched_in_resolution(card: ModelCard) -> tuple[str, ...]:
    """Maps that take away the difference in resolution: an early CAM stage, or the rollout averaged to 2x2 cells."""
    if native(card) == ("rollout",):
        return ("rollout:pooled=2", "attention-last", "grad-cam")
    return tuple(f"grad-cam:layer={layer.name}" for layer in card.feature_layers[:-1] if max(layer.grid) in (16, 8))


def _with_native(entries: Sequence[Entry], bench: Workbench, matched: bool = False) -> tuple[Entry, ...]:
    """Every entry without explainers of its own gets those that its readout asks for."""
    found = []
    for entry in entries:
        card = open_member(entry, bench).card
        more = matched_in_resolution(card) if matched else ()
        found.append(entry if entry.explainers else replace(entry, explainers=(*native(card), *more)))
    return tuple(found)
