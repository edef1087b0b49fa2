"""The self-test passes what works and refuses, with the reason, cards and methods that are wrong on purpose."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from audit_core import architectures
from audit_core.architectures import CANDIDATES, Candidate, cheap, chosen, explainers, main, name_of, row
from audit_core.classifier import Classifier
from audit_core.errors import Refused
from audit_core.explainers import EXPLAINERS, Explainer
from audit_core.explainers.base import Cost, Report, silent
from audit_core.keys import Choice
from audit_core.selftest import CHECKS, Outcome, identity, self_test, self_tests
from audit_core.types import Attribution
from models.cards import FeatureLayer, ModelCard
from tests.conftest import ROOT

GRADCAM, ROLLOUT, RISE = (EXPLAINERS.build(cheap(name)) for name in ("grad-cam", "rollout", "rise"))
COMMITTED = ROOT / "docs" / "architectures.md"


def test_what_works_passes_with_the_numbers_that_were_measured() -> None:
    for pair in (tiny.cnn(), tiny.swin(), tiny.vit()):
        found = self_test(*pair, GRADCAM)
        assert found.works, found
        assert found.measured["gradient"] < 0.01
        assert found.measured["place"] > 0.05
        assert self_test(*pair, RISE) == Outcome(True)
    assert self_test(*tiny.vit(), ROLLOUT).works
    assert self_test(*tiny.cnn(), EXPLAINERS.build(Choice("grad-cam", (("layer", "stage1"),)))).works
    assert self_test(*tiny.linear(), EXPLAINERS.build(Choice("random"))).works


def test_a_refusal_by_structure_is_passed_on() -> None:
    found = self_test(*tiny.cnn(), ROLLOUT)
    assert (found.works, found.check) == (False, "structure")
    assert found.reason == ROLLOUT.refuse(tiny.cnn()[0])


def with_layer(card: ModelCard, **changes: Any) -> ModelCard:
    return replace(card, feature_layers=(*card.feature_layers[:-1], replace(card.feature_layers[-1], **changes)))


def refused(card: ModelCard, module: nn.Module, check: str, words: str, explainer: Explainer = GRADCAM) -> None:
    found = self_test(card, module, explainer)
    assert (found.works, found.check) == (False, check), found
    assert check in CHECKS
    assert re.search(words, found.reason), found.reason
    assert not found.reason.endswith(".")


def test_a_layout_whose_shape_cannot_be_is_refused() -> None:
    card, module = tiny.vit()
    refused(with_layer(card, prefix_tokens=0), module, "layer", r"\(17, 24\) per image, .* no grid of 4x4")
    card, module = tiny.swin()
    refused(with_layer(card, layout="NCHW"), module, "layer", "read as NCHW is no grid of 2x2")


def test_channels_taken_for_rows_are_refused_where_the_shape_fits_too() -> None:
    """Eight channels on an 8x8 grid: NHWC and NCHW have the same shape, and the map would be of channels."""
    card, module = tiny.cnn()
    assert module(torch.zeros(1, 1, 16, 16)).shape == (1, 3)
    assert module.conv2.out_channels == card.feature_layers[-1].grid[0] == 8
    refused(with_layer(card, layout="NHWC"), module, "place", "rows and columns are not those of the image")


class Reordered(nn.Module):
    """Turns the grid before the last stage; turned back before the head it would change no score."""

    def __init__(self, inner: nn.Module, turn: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.inner, self.turn, self.stage = inner, turn, nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner.relu2(self.inner.conv2(self.inner.relu1(self.inner.norm(self.inner.conv1(x)))))
        return self.inner.head(self.stage(self.turn(x)).mean((2, 3)))


@pytest.mark.parametrize("turn", [lambda x: x.transpose(2, 3), lambda x: x.flip(2), lambda x: x.flip(3)])
def test_a_grid_that_is_turned_is_refused(turn: Callable[[torch.Tensor], torch.Tensor]) -> None:
    card, module = tiny.cnn()
    assert self_test(with_layer(card, module="stage"), Reordered(module, lambda x: x), GRADCAM).works
    refused(with_layer(card, module="stage"), Reordered(module, turn), "place", "does not show in the same part")


def test_a_module_that_the_score_does_not_depend_on_is_refused() -> None:
    card, module = tiny.cnn()

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.side = module, nn.AvgPool2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.side(x)
            return self.inner(x)

    found = replace(card, feature_layers=(FeatureLayer("side", "side", "NCHW", (8, 8)),))
    refused(found, Beside(), "gradient", r"score does not depend on side \(side\) of tiny-cnn")
    refused(with_layer(card, module="drop"), module, "layer", r"gives \(8,\) per image")
    refused(with_layer(card, module="nowhere"), module, "error", "failed with AttributeError")


class Wrong(torch.autograd.Function):
    """The value of a ReLU with half of its gradient."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return 0.5 * gradient * (context.saved_tensors[0] > 0)


def test_a_gradient_that_is_not_that_of_the_score_is_refused() -> None:
    """At the layer and at the pixels: the network answers correctly, but passes back half of the truth."""
    card, module = tiny.cnn()
    module.relu2.forward = Wrong.apply
    found = with_layer(card, module="conv2")
    refused(found, module, "gradient", "is not that of the score", GRADCAM)
    refused(found, module, "gradient", "the gradient at the input of tiny-cnn", EXPLAINERS.build(Choice("saliency")))


def test_attention_that_is_not_over_the_cards_tokens_is_refused() -> None:
    card, module = tiny.vit()
    for block in module.blocks:
        block.attn.attn_drop = nn.Sequential(block.attn.attn_drop)
    halved = tiny.vit()[1]
    halved.blocks[0].attn.attn_drop.register_forward_pre_hook(lambda _, inputs: (inputs[0] / 2,))
    refused(card, halved, "attention", "do not sum to 1|changes its scores", ROLLOUT)
    refused(with_layer(card, grid=(2, 8), prefix_tokens=0), module, "attention", "not over its 16 tokens", ROLLOUT)


def test_scores_that_say_nothing_are_refused() -> None:
    card, module = tiny.cnn()
    nn.init.zeros_(module.head.weight)
    refused(card, module, "scores", "scores of tiny-cnn do not depend on the image", RISE)
    nn.init.constant_(module.head.bias, float("nan"))
    refused(card, module, "scores", "not finite", RISE)
    refused(replace(card, classes=("a", "b")), tiny.cnn()[1], "scores", r"answers 4 images with \(4, 3\)", RISE)


@dataclass(frozen=True)
class Given(Explainer):
    """A map that is made as the test says."""

    make: Callable[[torch.Tensor], np.ndarray]
    passes: int = 1

    title: ClassVar[str] = "Given"
    reads: ClassVar[str] = "scores"

    def cost(self, card: ModelCard) -> Cost:
        return Cost(1)

    def attribute(
        self, classifier: Classifier, images: torch.Tensor, target: torch.Tensor, seed: int, report: Report = silent
    ) -> Attribution:
        for _ in range(self.passes):
            classifier.logits(images)
        return Attribution(self.make(images), target.numpy(), False, None, len(images))


def ramp(images: torch.Tensor) -> np.ndarray:
    return np.arange(images[:, 0].numel(), dtype=np.float32).reshape(images[:, 0].shape)


def failing(images: torch.Tensor) -> np.ndarray:
    raise KeyError("planned failure\nand more")


def declining(images: torch.Tensor) -> np.ndarray:
    raise Refused("planned refusal of tiny-cnn")


@pytest.mark.parametrize(
    ("given", "check", "words"),
    [
        (Given(lambda x: 0 * ramp(x)), "map", "map of Given on tiny-cnn is flat on each of 4 images"),
        (Given(lambda x: 1 + 0 * ramp(x)), "map", "flat"),
        (Given(lambda x: ramp(x) / 0 * 0), "map", "not finite"),
        (Given(lambda x: ramp(x) - 9), "map", "unsigned and gives values below 0"),
        (Given(lambda x: ramp(x)[:, 1:]), "map", r"gives a map of \(15, 16\)"),
        (Given(ramp, passes=2), "map", "more evaluations of tiny-cnn than it states"),
        (Given(failing), "error", "^trying Given on tiny-cnn failed with KeyError: 'planned failure"),
        (Given(declining), "map", "^planned refusal of tiny-cnn$"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:divide by zero")
def test_a_map_that_says_nothing_is_refused(given: Given, check: str, words: str) -> None:
    assert self_test(*tiny.cnn(), Given(ramp)).works
    refused(*tiny.cnn(), check, words, given)


def test_a_map_that_is_flat_only_where_its_negative_part_was_cut_off_is_no_reason_to_refuse() -> None:
    """All evidence of the last stage speaks against every class: the rectified map is 0, the method is sound."""
    card, module = tiny.cnn()
    nn.init.constant_(module.head.weight, -1.0)
    module.head.weight.data[:, 0] = torch.tensor([-0.5, -1.0, -2.0])
    maps = GRADCAM.attribute(Classifier(card, module, tiny.CPU), tiny.images(3), torch.tensor([0, 1, 2]), 0)
    assert not maps.values.any()
    assert self_test(card, module, GRADCAM).works


def test_several_explainers_share_the_checks_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    card, module = tiny.cnn()
    calls = []
    forward = module.forward
    module.forward = lambda x: calls.append(len(x)) or forward(x)
    names = ("grad-cam", "hires-cam", "layer-cam")
    together = self_tests(card, module, {name: EXPLAINERS.build(Choice(name)) for name in names})
    shared = len(calls)
    alone = {name: self_test(card, module, EXPLAINERS.build(Choice(name))) for name in names}
    assert together == alone
    assert len(calls) - shared > shared


def test_the_module_is_as_found() -> None:
    card, module = tiny.cnn()
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    self_test(card, module, GRADCAM)
    self_test(card, module, Given(failing))
    assert all(part.training for part in module.modules())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_an_outcome_may_be_kept_under_what_it_depends_on() -> None:
    card, choice = tiny.cnn()[0], EXPLAINERS.complete(Choice("grad-cam"))
    keys = {
        identity(card, choice),
        identity(replace(card, weights_sha256="ab"), choice),
        identity(replace(card, architecture="other"), choice),
        identity(with_layer(card, layout="NHWC"), choice),
        identity(card, EXPLAINERS.complete(Choice("grad-cam", (("relu", False),)))),
    }
    assert len(keys) == 5
    assert identity(replace(card, name="renamed", seed=4), choice) == identity(card, choice)
    outcome = self_test(*tiny.cnn(), GRADCAM)
    assert Outcome(**json.loads(json.dumps(outcome.to_json()))) == outcome


# The table of architectures

QUICK = {
    "regnety_002": ("global average pool", "auxiliary", {"rollout": "refused", "grad-cam": "native"}),
    "vit_tiny_patch16_224": ("CLS token", "global", {"rollout": "native", "grad-cam": "adapted"}),
    "xcit_nano_12_p16_224": ("class attention", "unknown", {"rollout": "refused", "grad-cam": "adapted"}),
    "swin_tiny_patch4_window7_224": ("global average pool", "windowed", {"rollout": "refused", "grad-cam": "native"}),
    "pvt_v2_b0": ("global average pool", "global", {"rollout": "refused", "grad-cam": "native"}),
}


def words(one: architectures.Row) -> dict[str, str]:
    return {name: cell.badge if cell.works else "refused" for name, cell in one.cells.items()}


def committed() -> dict[str, dict[str, str]]:
    """Cells of the committed table by architecture: column -> text, without the number of a reason."""
    lines = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in COMMITTED.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    head = [cell.strip("`") for cell in lines[0]]
    return {line[0]: dict(zip(head, (re.sub(r": \d+$", "", c) for c in line), strict=True)) for line in lines[1:]}


@pytest.mark.parametrize("name", QUICK)
def test_architectures_of_five_kinds_are_read_as_they_are(name: str) -> None:
    readout, attention, cells = QUICK[name]
    candidate = next(candidate for candidate in CANDIDATES if candidate.name == name)
    found = row(candidate, explainers(["rollout", "grad-cam", "rise"]))
    assert (found.error, found.readout, found.attention) == ("", readout, attention)
    assert words(found) == {**cells, "rise": "model-agnostic"}
    kept = committed()[name_of(candidate)]
    assert (kept["readout"], kept["attention"]) == (readout, attention)
    assert {column: kept[column] for column in words(found)} == words(found)


def test_the_committed_table_has_a_row_for_every_candidate() -> None:
    kept = committed()
    assert list(kept) == [name_of(candidate) for candidate in CANDIDATES]
    assert len({candidate.name for candidate in CANDIDATES}) >= 40
    assert not [name for name, cells in kept.items() if "not built" in cells["readout"]]
    assert set(list(next(iter(kept.values())))[5:]) <= set(EXPLAINERS)


def test_an_architecture_that_cannot_be_built_is_a_row_and_not_an_error() -> None:
    found = row(Candidate("resnet18", 64, {"no_such_option": 1}), {"rise": RISE})
    assert "TypeError" in found.error
    text = architectures.table([found], ["rise"], "command")
    assert "| resnet18 (no_such_option=1) | 64 px | not built: TypeError" in text


def test_the_command_writes_markdown_and_json(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    arguments = ["--only", "mobilenetv3_small_050", "--explainers", "rollout", "grad-cam"]
    assert main([*arguments, "--out", str(tmp_path / "table.md")]) == 0
    text = (tmp_path / "table.md").read_text()
    assert "| mobilenetv3_small_050 | 64 px | global average pool | auxiliary | 2x2 (32 px) |" in text
    assert "| refused: 1 | native |\n" in text
    assert "1. Attention Rollout follows a class token through global attention\n" in text
    assert main([*arguments, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["cells"]["grad-cam"] == {"badge": "native", "check": "", "reason": ""}
    assert main(["--only", "resnet19"]) == 2
    assert "architecture 'resnet19' is not in the table" in capsys.readouterr().err
    assert main(["--explainers", "grad-kam"]) == 2
    assert "Did you mean 'grad-cam'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "convnext_atto", "deit_tiny_distilled_patch16_224", "cait_xxs24_224",
             "mixer_s32_224", "maxvit_nano_rw_256", "efficientformerv2_s0", "vgg11"],
)  # fmt: skip
def test_a_fresh_run_gives_the_committed_table(name: str) -> None:
    (candidate,) = chosen([name])
    kept = committed()[name_of(candidate)]
    tried = explainers([column for column in kept if column in EXPLAINERS])
    found = row(candidate, tried)
    assert (kept["readout"], kept["attention"]) == (found.readout, found.attention)
    assert {column: kept[column] for column in tried} == words(found)
