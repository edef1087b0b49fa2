"""Which explainer works on which architecture: every pair put through the self-test, as a table.

``python -m audit_core.architectures`` builds timm models with random weights, asks each for its structure, and tries
every registered explainer on it; ``docs/architectures.md`` is what it wrote.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from audit_core.errors import AuditError, InvalidParameter
from audit_core.explainers import EXPLAINERS, Explainer
from audit_core.keys import Choice
from audit_core.params import Between
from audit_core.readouts import granularity, relation
from audit_core.selftest import Outcome, plain_images, self_tests
from models.cards import ModelCard
from models.structure import describe

CLASSES = 5
SEED = 0

#: Values in place of defaults, for explainers that have a parameter of the name: few forwards tell as much here.
FEW = {
    "n_masks": 16,
    "n_samples": 24,
    "n_segments": 8,
    "samples": 2,
    "steps": 4,
    "channels": 16,
    "window": 32,
    "stride": 32,
}


@dataclass(frozen=True)
class Candidate:
    """A timm architecture, the side of its square input in px, and what else its builder is given."""

    name: str
    side: int = 64
    options: dict[str, Any] = field(default_factory=dict)  # Any: timm's keyword arguments


def _sized(name: str, side: int = 64, **options: Any) -> Candidate:  # Any: timm's keyword arguments
    """A candidate whose builder must be told the input's side."""
    return Candidate(name, side, {"img_size": side, **options})


#: Small variants, narrowed where timm has none; the input is small as well, but gives the last stage a grid.
CANDIDATES: tuple[Candidate, ...] = (
    Candidate("resnet18"),
    Candidate("resnetv2_50"),
    Candidate("resnext26ts"),
    Candidate("seresnet18"),
    Candidate("ecaresnet26t"),
    Candidate("skresnet18"),
    Candidate("resnest14d"),
    Candidate("res2net50_14w_8s"),
    Candidate("convnext_atto"),
    Candidate("convnextv2_atto"),
    Candidate("inception_next_atto"),
    Candidate("efficientnet_b0"),
    Candidate("densenet121"),
    Candidate("regnetx_002"),
    Candidate("regnety_002"),
    Candidate("mobilenetv2_035"),
    Candidate("mobilenetv3_small_050"),
    Candidate("mobilenetv4_conv_small_035"),
    Candidate("mnasnet_050"),
    Candidate("ghostnet_050"),
    Candidate("vgg11", options={"mlp_ratio": 0.125}),
    Candidate("xception41"),
    Candidate("inception_v3", 128),
    Candidate("dla34"),
    Candidate("cspresnet50"),
    Candidate("ese_vovnet19b_dw"),
    Candidate("repvgg_a0"),
    Candidate("hrnet_w18_small"),
    Candidate("resnet50_clip"),
    _sized("vit_tiny_patch16_224"),
    _sized("vit_tiny_patch16_224", global_pool="avg"),
    _sized("vit_wee_patch16_reg1_gap_256"),
    _sized("vit_base_patch16_siglip_224", depth=3, embed_dim=96, num_heads=3),
    _sized("deit_tiny_patch16_224"),
    _sized("deit_tiny_distilled_patch16_224"),
    _sized("beit_base_patch16_224", depth=4, embed_dim=96, num_heads=3),
    _sized("eva02_tiny_patch14_224", 56),
    _sized("cait_xxs24_224"),
    _sized("xcit_nano_12_p16_224"),
    _sized("convit_tiny"),
    _sized("swin_tiny_patch4_window7_224", embed_dim=48, depths=(1, 1, 1, 1)),
    _sized("swinv2_tiny_window8_256", embed_dim=48, depths=(1, 1, 1, 1)),
    _sized("maxvit_nano_rw_256"),
    Candidate("pvt_v2_b0"),
    _sized("mvitv2_tiny"),
    _sized("coatnet_pico_rw_224"),
    Candidate("twins_svt_small", options={"depths": (1, 1, 2, 1)}),
    _sized("mixer_s32_224", 128),
    _sized("resmlp_12_224"),
    _sized("gmlp_ti16_224"),
    Candidate("poolformer_s12"),
    Candidate("caformer_s18"),
    Candidate("fastvit_t8"),
    Candidate("fastvit_sa12"),
    Candidate("efficientformer_l1", 224),
    _sized("efficientformerv2_s0"),
    _sized("levit_128s", 224),
    Candidate("edgenext_xx_small"),
    Candidate("mobilevit_xxs"),
    Candidate("efficientvit_b0"),
    Candidate("botnet26t_256", 256),
    _sized("gcvit_xxtiny"),
    Candidate("focalnet_tiny_srf"),
    _sized("hiera_tiny_224"),
)


@dataclass(frozen=True)
class Cell:
    """One explainer on one architecture: its badge, and "" or the reason why it is refused (``check`` failed)."""

    badge: str
    check: str = ""
    reason: str = ""

    @property
    def works(self) -> bool:
        """Whether the self-test passed."""
        return not self.reason

    @property
    def short(self) -> str:
        """The reason; of a refusal by structure what the method needs, since what the model has is in its row."""
        return self.reason.partition(";")[0] if self.check == "structure" else self.reason


@dataclass(frozen=True)
class Row:
    """One architecture: structure as words, and a cell per explainer; ``error`` when it could not be built."""

    architecture: str
    side: int
    readout: str = ""
    attention: str = ""
    grids: tuple[tuple[int, int], ...] = ()
    cell_px: float | None = None
    cells: dict[str, Cell] = field(default_factory=dict)
    error: str = ""


def name_of(candidate: Candidate) -> str:
    """The architecture with the options that change what it is, as a reader would type them."""
    shown = {k: v for k, v in candidate.options.items() if k != "img_size"}
    return f"{candidate.name} ({', '.join(f'{k}={v}' for k, v in shown.items())})" if shown else candidate.name


def built(candidate: Candidate) -> tuple[ModelCard, nn.Module]:
    """The model with random weights of a fixed seed, in eval mode, and its card; timm's own errors come through."""
    size = (candidate.side, candidate.side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        module = timm.create_model(candidate.name, pretrained=False, num_classes=CLASSES, **candidate.options).eval()
    declared: Any = module.pretrained_cfg  # Any: timm's dictionary, which torch's types take for a tensor
    mean, std = (torch.tensor(declared[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    dimmed = plain_images(16, 3, size, seed=1) * torch.linspace(0, 1, 16).view(-1, 1, 1, 1)
    _wake(module, (dimmed - mean) / std)
    layers, readout, attention = describe(module, size, 3)
    card = ModelCard(
        name=candidate.name,
        family=candidate.name.partition("_")[0],
        architecture=candidate.name,
        input_size=size,
        channels=3,
        encoding="pixels",
        mean=tuple(declared["mean"]),
        std=tuple(declared["std"]),
        classes=tuple(f"class {index}" for index in range(CLASSES)),
        feature_layers=layers,
        readout=readout,
        attention=attention,
        parameters=sum(p.numel() for p in module.parameters()),
        options=dict(candidate.options),
    )
    return card, module


def _wake(module: nn.Module, images: torch.Tensor) -> None:
    """Let an untrained model answer to its input, in place: give it what training would have given it first.

    Linear layers that timm starts at zero are drawn, since a score of 0 for every image has nothing to explain; batch
    norms that shut off their branch at the start open it, and take the statistics of ``images``, without which a
    signal dies out over tens of layers; the logits are spread, so that no softmax is flat or saturated.
    """
    rng = torch.Generator().manual_seed(SEED)
    for part in module.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.normal_(part.weight, std=part.in_features**-0.5, generator=rng)
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    usual = [part.momentum for part in norms]
    for part in norms:
        if part.affine and not part.weight.any():
            nn.init.constant_(part.weight, 0.2)
        part.train()
        part.momentum = 1.0  # the statistics of this batch alone
    with torch.no_grad():
        module(images)
        for part, momentum in zip(norms, usual, strict=True):
            part.eval()
            part.momentum = momentum
        _spread(module, module(images))


def _spread(module: nn.Module, logits: torch.Tensor) -> None:
    """Scale and shift the last layer, where it is one, so that the logits have mean 0 and deviation 1 over images."""
    heads = [p for p in module.modules() if isinstance(p, nn.Linear | nn.Conv2d) and p.weight.shape[0] == CLASSES]
    if len(heads) == 1 and heads[0].bias is not None:
        factor = 1 / logits.std(0).mean().clamp_min(1e-9)
        heads[0].weight.mul_(factor)
        heads[0].bias.sub_(logits.mean(0)).mul_(factor)


def cheap(name: str) -> Choice:
    """The explainer with its defaults, except that it takes few samples (``FEW``) where it can."""
    known = EXPLAINERS.parameters(name)
    few = {key: FEW[key] for key in FEW if key in known}
    for key, value in few.items():
        limit = known[key].limit
        if isinstance(limit, Between):
            few[key] = int(min(max(value, limit.low), limit.high))
    return EXPLAINERS.complete(Choice(name, tuple(few.items())))


def explainers(names: Sequence[str] = ()) -> dict[str, Explainer]:
    """Those named, else all that ask the model; controls pass any test, so they would fill columns with nothing."""
    chosen = names or [name for name in EXPLAINERS if EXPLAINERS[name].reads not in ("image", "nothing", "outside")]
    return {name: EXPLAINERS.build(cheap(name)) for name in chosen}


def row(candidate: Candidate, tried: dict[str, Explainer]) -> Row:
    """Build, describe, and put every explainer through the self-test; never raises for what a model does."""
    title = name_of(candidate)
    try:
        card, module = built(candidate)
    except Exception as error:  # a foreign builder: its failure is the row
        return Row(title, candidate.side, error=f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}")
    read = granularity("features", card)
    outcomes = self_tests(card, module, tried)
    cells = {name: _cell(explainer, card, outcomes[name]) for name, explainer in tried.items()}
    grids = tuple(layer.grid for layer in card.feature_layers)
    cell_px = read.cell[0] if read else None
    return Row(title, candidate.side, card.readout, card.attention, grids, cell_px, cells)


def _cell(explainer: Explainer, card: ModelCard, outcome: Outcome) -> Cell:
    badge = relation(explainer.reads, card, str(getattr(explainer, "layer", ""))).badge
    return Cell(badge, outcome.check, outcome.reason.replace(card.name, "the model"))


def table(rows: Sequence[Row], tried: Sequence[str], command: str) -> str:
    """The rows as Markdown with a header that says how they were made; reasons are numbered below."""
    reasons: dict[str, int] = {}
    head = ["architecture", "input", "readout", "attention", "last grid", *(f"`{name}`" for name in tried)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in rows:
        lines.append(f"| {' | '.join(_words(one, tried, reasons))} |")
    works = sum(cell.works for one in rows for cell in one.cells.values())
    count = sum(len(one.cells) for one in rows)
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([*_header(command, len(rows), works, count), *lines, "", "## Why refused", "", *notes]) + "\n"


def _header(command: str, rows: int, works: int, count: int) -> list[str]:
    return [
        "# Architectures and explainers",
        "",
        f"Made by `{command}` with timm {version('timm')} and torch {version('torch')}, on the CPU: {rows} "
        f"architectures, {count} pairs, of which {works} pass the self-test of `audit_core/selftest.py`. The weights "
        f"are random (seed {SEED}, {CLASSES} classes; batch norms and the spread of the logits are set on 16 drawn "
        "images, branches that start at zero are opened). That shows whether a method runs and reads what it claims to "
        "read, not whether its map is any good; sampling methods took few samples.",
        "",
        "A cell is the relation of the method to the readout (native, adapted, mismatched, model-agnostic) where the "
        "self-test passes, else *refused* with the number of the reason below. Readout and attention are found by "
        "probing the model, not by its name.",
        "",
    ]


def _words(one: Row, tried: Sequence[str], reasons: dict[str, int]) -> list[str]:
    if one.error:
        return [one.architecture, f"{one.side} px", f"not built: {one.error}", *([""] * (2 + len(tried)))]
    grid = f"{one.grids[-1][0]}x{one.grids[-1][1]} ({one.cell_px:.4g} px)" if one.grids else "none"
    start = [one.architecture, f"{one.side} px", one.readout, one.attention, grid]
    cells = [one.cells[name] for name in tried]
    return [*start, *(_cell_words(cell, reasons) for cell in cells)]


def _cell_words(cell: Cell, reasons: dict[str, int]) -> str:
    if cell.works:
        return cell.badge
    return f"refused: {reasons.setdefault(cell.short, len(reasons) + 1)}"


def rows_of(
    candidates: Sequence[Candidate], tried: dict[str, Explainer], report: Callable[[str], object]
) -> Iterator[Row]:
    """One row after the other; a model is let go before the next is built."""
    for number, candidate in enumerate(candidates, 1):
        report(f"{number} of {len(candidates)}: {name_of(candidate)}\n")
        yield row(candidate, tried)


def chosen(names: Sequence[str]) -> list[Candidate]:
    """The candidates with these names, all for none; ``InvalidParameter`` names what is missing."""
    known = {candidate.name for candidate in CANDIDATES}
    if missing := [name for name in names if name not in known]:
        raise InvalidParameter(f"architecture {missing[0]!r} is not in the table; it has {', '.join(sorted(known))}")
    return [candidate for candidate in CANDIDATES if not names or candidate.name in names]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 with one sentence on stderr."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(options.threads)
    try:
        tried, candidates = explainers(options.explainers), chosen(options.only)
    except AuditError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    rows = list(rows_of(candidates, tried, sys.stderr.write))
    text = json.dumps([asdict(one) for one in rows], indent=1) + "\n" if options.json else ""
    text = text or table(rows, list(tried), _command(options))
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.write_text(text, encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m audit_core.architectures", description=(__doc__ or "")[:98])
    parser.add_argument("--json", action="store_true", help="rows as JSON instead of Markdown")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of to the screen")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="these architectures alone")
    parser.add_argument("--explainers", nargs="+", default=(), metavar="NAME", help="these explainers alone")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    return parser


def _command(options: argparse.Namespace) -> str:
    words = ["python -m audit_core.architectures"]
    words += [f"--only {' '.join(options.only)}"] if options.only else []
    words += [f"--explainers {' '.join(options.explainers)}"] if options.explainers else []
    return " ".join([*words, f"--out {options.out.as_posix()}"] if options.out else words)


if __name__ == "__main__":
    sys.exit(main())
