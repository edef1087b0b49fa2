"""Before a pair of checkpoint and explainer is first used it has to pass its self-test; a failure is a refusal."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from audit_core import audit, examples
from audit_core.errors import Refused
from audit_core.explainers import EXPLAINERS
from audit_core.keys import Choice
from audit_core.selftest import identity
from audit_core.store import Store
from audit_core.workbench import Workbench
from models import zoo
from models.zoo import Loaded

CNN = "wafer-resnet18-cbam"


@pytest.fixture
def bench(tmp_path):
    return Workbench(Store(tmp_path), "cpu")


def test_a_card_that_names_the_wrong_layout_is_refused(bench, monkeypatch):
    """The features are read channels last although they lie channels first: a map would come out, and be wrong."""
    loaded = zoo.load(CNN)
    layers = tuple(dataclasses.replace(layer, layout="NHWC") for layer in loaded.card.feature_layers)
    wrong = dataclasses.replace(loaded.card, feature_layers=layers, name="mistaken")
    monkeypatch.setattr(zoo, "card", lambda name: wrong)
    monkeypatch.setattr(zoo, "load", lambda name: Loaded(wrong, loaded.module))
    with pytest.raises(Refused, match="Grad-CAM failed its self-test on mistaken"):
        audit.run(audit.spec(CNN, "grad-cam", "zero", "synthetic:sample:3", steps=2, controls=0), bench)
    record = audit.run(audit.spec(CNN, "random", "zero", "synthetic:sample:3", steps=2, controls=0), bench)
    assert record.badge == "control", "what does not look into the model is not tested"


def test_an_outcome_is_kept_and_used_again(bench, monkeypatch):
    calls = []
    real = audit.self_test
    monkeypatch.setattr(audit, "self_test", lambda *given: calls.append(1) or real(*given))
    for layer in ("stage1", "stage1", "stage2"):
        for index in (0, 1):
            words = (CNN, f"grad-cam:layer={layer}", "zero", f"synthetic:sample:{index}")
            audit.run(audit.spec(*words, steps=2, controls=0), bench)
    assert len(calls) == 2


def test_shipped_outcomes_are_those_of_the_shipped_weights():
    known = examples.self_tests()
    for name in zoo.names():
        card = zoo.card(name)
        for explainer in EXPLAINERS:
            choice = EXPLAINERS.complete(Choice(explainer))
            built = EXPLAINERS.build(choice)
            if built.library != "own" and built.family == "outside":
                continue
            if built.reads not in audit.UNTESTED and built.refuse(card) is None:
                assert identity(card, choice) in known, f"{name} · {explainer}: run python -m audit_core.examples"


def test_a_shipped_outcome_is_found_again():
    loaded, choice = zoo.load(CNN), EXPLAINERS.complete(Choice("grad-cam"))
    with torch.random.fork_rng(devices=[]):
        again = audit.self_test(loaded.card, loaded.module, EXPLAINERS.build(choice))
    assert again.works is examples.self_tests()[identity(loaded.card, choice)]["works"] is True
