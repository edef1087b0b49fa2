"""Badges, directness and granularity: tables written out by hand, and the paper's own figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny

from audit_core.explainers import EXPLAINERS
from audit_core.explainers.base import READS
from audit_core.readouts import BADGES, directness, granularity, relation
from models import zoo
from models.cards import UNKNOWN, ModelCard
from models.structure import ATTENTIONS, READOUTS

VIT, SWIN, CNN, LINEAR = (build()[0] for build in (tiny.vit, tiny.swin, tiny.cnn, tiny.linear))
MEAN = replace(VIT, readout="mean of tokens")
DISTILLED = replace(VIT, readout="distillation token")
LATE = replace(VIT, readout="class attention")
FLAT = replace(CNN, readout="flattened map")
FEATURES = ("features", "feature gradients", "feature scores")

# (signals, card, layer, badge, words of the sentence)
BADGE_TABLE = [
    (("attention", "attention gradients"), VIT, "", "native", "class token gathers"),
    (("attention", "attention gradients"), DISTILLED, "", "native", "distillation tokens gather"),
    (("attention", "attention gradients"), MEAN, "", "mismatched", "mean of tokens"),
    (("attention", "attention gradients"), LATE, "", "mismatched", "joins after"),
    (("attention", "attention gradients"), SWIN, "", "mismatched", "global average pool"),
    (("attention", "attention gradients"), CNN, "", "mismatched", "computes no attention"),
    (FEATURES, CNN, "", "native", "average of the very feature map"),
    (FEATURES, CNN, "stage2", "native", "average of the very feature map"),
    (FEATURES, SWIN, "", "native", "average of the very feature map"),
    (FEATURES, MEAN, "", "native", "average of the very feature map"),
    (FEATURES, CNN, "stage1", "adapted", "Reads stage1, an earlier stage"),
    (FEATURES, VIT, "", "adapted", "CLS token"),
    (FEATURES, FLAT, "", "adapted", "flattened map"),
    (("relevance",), VIT, "", "native", "each operator of the forward pass"),
    (("relevance",), CNN, "", "adapted", "made for global attention"),
    (("input gradients",), VIT, "", "adapted", "back to the pixels"),
    (("input gradients",), CNN, "", "adapted", "back to the pixels"),
    (("scores",), VIT, "", "model-agnostic", "only the model's scores"),
    (("outside",), VIT, "", "model-agnostic", "what it read is unknown"),
    (("image", "nothing"), CNN, "", "control", "Does not ask the model"),
]


@pytest.mark.parametrize(("signals", "card", "layer", "badge", "words"), BADGE_TABLE)
def test_badge_and_its_reason(signals: tuple[str, ...], card: ModelCard, layer: str, badge: str, words: str) -> None:
    for reads in signals:
        found = relation(reads, card, layer)
        assert (found.badge, words in found.sentence) == (badge, True), (reads, found)


def test_the_table_covers_every_signal() -> None:
    assert {reads for row in BADGE_TABLE for reads in row[0]} == set(READS)
    assert {row[3] for row in BADGE_TABLE} == set(BADGES)


@pytest.mark.parametrize("readout", [*READOUTS, UNKNOWN])
@pytest.mark.parametrize("attention", [*ATTENTIONS, UNKNOWN])
def test_every_signal_has_a_sentence_on_every_readout(readout: str, attention: str) -> None:
    card = replace(VIT, readout=readout, attention=attention)
    for reads in READS:
        found = relation(reads, card)
        assert found.badge in BADGES
        assert found.sentence.endswith(".")
        assert len(found.sentence.split()) > 5


def test_reading_attention_is_more_direct_than_reading_gradients() -> None:
    """The two signals that the paper places; everything else is marked as our own rule or as not known."""
    rollout, cam = directness("attention", VIT), directness("feature gradients", CNN)
    assert rollout.rank is not None
    assert cam.rank is not None
    assert rollout.rank > cam.rank
    assert rollout.published
    assert cam.published
    ranks = {reads: directness(reads, VIT).rank for reads in READS}
    assert ranks == {
        "attention": 2, "features": 2, "attention gradients": 1, "feature gradients": 1, "input gradients": 1,
        "relevance": 1, "feature scores": None, "scores": None, "outside": None, "image": None, "nothing": None,
    }  # fmt: skip
    assert {reads for reads in READS if directness(reads, VIT).published} == {"attention", "feature gradients"}


def test_operators_that_the_score_does_not_pass_have_no_directness() -> None:
    found = directness("attention", SWIN)
    assert (found.rank, found.word, found.published) == (None, "not known", False)


def test_granularity_of_the_shipped_checkpoints_is_that_of_the_paper() -> None:
    """arXiv 2605.14255: patches of 4x4 px, 0.4 % of the image; the last stages of the others are 2x2 at 64 px."""
    patches = granularity("attention", zoo.card("wafer-vit-tiny"))
    assert patches is not None
    assert (patches.rows, patches.columns, patches.cell) == (16, 16, (4.0, 4.0))
    assert round(100 * patches.share, 1) == 0.4
    assert str(patches) == "16x16 cells of 4x4 px"
    for name in ("wafer-swin-tiny", "wafer-resnet18-cbam", "wafer-densenet121"):
        stage = granularity("feature gradients", zoo.card(name))
        assert stage is not None
        assert (stage.rows, stage.columns, stage.cell, stage.share) == (2, 2, (32.0, 32.0), 0.25)


def test_granularity_follows_the_layer_and_the_signal() -> None:
    layers = [granularity("features", CNN, name) for name in ("stage1", "stage2", "")]
    assert [layer and layer.cell for layer in layers] == [(1.0, 1.0), (2.0, 2.0), (2.0, 2.0)]
    pixel = granularity("input gradients", CNN)
    assert pixel is not None
    assert (pixel.rows, pixel.columns, pixel.cell) == (16, 16, (1.0, 1.0))
    oblong = replace(CNN, input_size=(16, 32))
    assert getattr(granularity("relevance", oblong), "share", None) == 1 / 512
    for reads in ("scores", "outside", "image", "nothing"):
        assert granularity(reads, CNN) is None
    assert granularity("features", LINEAR) is None
    with pytest.raises(ValueError, match="no feature layer 'stage9'; it has stage1, stage2"):
        granularity("features", CNN, "stage9")


@pytest.mark.parametrize("name", EXPLAINERS)
def test_every_explainer_names_a_known_signal(name: str) -> None:
    assert EXPLAINERS[name].reads in READS
