"""A contrast asks why a class rather than another: every score becomes a difference of two logits."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from audit_core.errors import InvalidParameter
from audit_core.explainers import EXPLAINERS
from audit_core.keys import Choice, key
from audit_core.types import AuditSpec, Triple

TRIPLE = Triple("tiny", Choice("grad-cam"), Choice("zero"))


def built(name, **params):
    return EXPLAINERS.build(Choice(name, tuple(params.items())))


@pytest.mark.parametrize("model", tiny.MODELS)
def test_logits_are_differences_and_probabilities_are_unchanged(model):
    plain, pixels = tiny.classifier(tiny.MODELS[model]()), tiny.images(2)
    logits, view = plain.logits(pixels), plain.against(1)
    torch.testing.assert_close(view.logits(pixels), logits - logits[:, 1:2])
    torch.testing.assert_close(view.logits(pixels).softmax(1), logits.softmax(1))
    torch.testing.assert_close(plain.logits(pixels), logits)
    with view.lend() as module:
        torch.testing.assert_close(module(view.normalise(pixels)), logits - logits[:, 1:2])
    assert not plain.module._forward_hooks
    assert view.module is plain.module


def test_gradient_maps_of_a_contrast_are_differences_of_maps():
    """Grad-CAM without its cut at 0 is linear in the score's gradient."""
    found, pixels, explainer = tiny.classifier(tiny.cnn()), tiny.images(2), built("grad-cam", relu=False)
    maps = [explainer.attribute(found, pixels, torch.full((2,), k), 0).values for k in (0, 2)]
    both = explainer.attribute(found.against(2), pixels, torch.zeros(2, dtype=torch.int64), 0)
    np.testing.assert_allclose(both.values, maps[0] - maps[1], atol=1e-6)


def test_rise_of_a_contrast_averages_logit_differences():
    """Against the literal mean over the same masks."""
    found, pixels = tiny.classifier(tiny.cnn()), tiny.images(1)
    explainer = built("rise", n_masks=60, settle=1.0, coverage=False)
    masks = torch.cat(list(explainer.masks(pixels.shape[2:], 0, tiny.CPU)))
    logits = found.predict(pixels * masks[:, None]).double()
    expected = ((logits[:, 0] - logits[:, 2])[:, None, None] * masks).mean(0) / explainer.p
    both = explainer.attribute(found.against(2), pixels, torch.tensor([0]), 0)
    np.testing.assert_allclose(both.values[0], expected.numpy(), atol=1e-4)
    assert both.signed


def test_a_contrast_needs_logits_and_changes_the_key():
    with pytest.raises(InvalidParameter, match="difference of logits"):
        AuditSpec(TRIPLE, "synthetic:sample:0", against="ring")
    spec = AuditSpec(TRIPLE, "synthetic:sample:0", quantity="logit", against="ring")
    assert spec.scored == "logit difference"
    assert key(spec=spec) != key(spec=AuditSpec(TRIPLE, "synthetic:sample:0", quantity="logit"))
