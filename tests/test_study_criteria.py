"""Criteria of a study: read, written back, fixed by a digest, and compared with what was fixed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from audit_core.errors import InvalidParameter
from audit_core.params import parameters
from audit_core.study.criteria import CONTROLS, Criteria, changed_since
from audit_core.study.definition import Study

ROOT = Path(__file__).resolve().parents[1]


def study(criteria: dict) -> Study:
    return Study.parse(
        'explainers = ["random"]\nfills = ["zero"]\n[[checkpoint]]\nname = "a"\n[criteria]\n'
        + "\n".join(f"{name} = {json.dumps(value)}" for name, value in criteria.items())
    )


def fixed(criteria: dict) -> dict:
    """What a manifest says about criteria, written out without the code that writes manifests."""
    text = json.dumps(criteria, sort_keys=True)
    return {"criteria": criteria, "criteria_sha256": hashlib.sha256(text.encode()).hexdigest()}


def test_an_empty_table_gives_the_documented_defaults():
    found = Criteria.parse({})
    assert found == Criteria()
    assert found.to_json() == {
        "metric": "srg",
        "beats": ["random", "input-intensity", "centre-prior", "edges"],
        "beats_random_by": 0.0,
        "share_of_fills": 0.8,
        "sanity_below": 0.5,
        "stability_above": 0.5,
        "healthy_share": 0.9,
        "min_images": 20,
        "per_class": True,
    }


def test_every_criterion_explains_itself_and_the_defaults_are_called_ours():
    assert all(len(parameter.limit.help) > 30 for parameter in parameters(Criteria).values())
    assert "every default is ours" in Criteria.__doc__


def test_the_controls_are_those_explainers_that_ask_no_model():
    from audit_core.explainers import EXPLAINERS

    assert set(CONTROLS) == {name for name, entry in EXPLAINERS.items() if entry.reads in ("image", "nothing")}


def test_what_is_written_is_read_back_the_same():
    asked = Criteria(metric="deletion", beats=("edges", "random"), share_of_fills=0.5, min_images=3, per_class=False)
    raw = tomllib.loads(asked.to_toml())["criteria"]
    assert Criteria.parse(raw) == asked
    assert raw["metric"] == "deletion"
    assert raw["min_images"] == 3


def test_the_digest_is_that_of_the_meaning():
    assert Criteria.parse({}).digest == Criteria.parse({"share_of_fills": 0.8}).digest
    assert Criteria(beats=("edges", "random")).digest == Criteria(beats=("random", "edges")).digest
    others = {Criteria(**{name: value}).digest for name, value in CHANGED.items()}
    assert len(others | {Criteria().digest}) == len(CHANGED) + 1


CHANGED = {
    "metric": "deletion",
    "beats": ("random",),
    "beats_random_by": 0.1,
    "share_of_fills": 0.5,
    "sanity_below": 0.4,
    "stability_above": 0.4,
    "healthy_share": 0.5,
    "min_images": 3,
    "per_class": False,
}


def test_the_changed_criteria_are_all_there_are():
    assert set(CHANGED) == {field.name for field in dataclasses.fields(Criteria)}


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        ({"share_of_fill": 0.5}, "has no 'share_of_fill'. Did you mean 'share_of_fills'"),
        ({"metric": "accuracy"}, "metric must be one of srg"),
        ({"metric": 3}, "metric must be a word, got 3"),
        ({"beats": "random"}, "beats must be a list"),
        ({"beats": ["random", 3]}, "beats must be a list"),
        ({"beats": []}, "beats is empty"),
        ({"beats": ["edge"]}, "no control 'edge'. Did you mean 'edges'"),
        ({"beats": ["edges", "edges"]}, "names 'edges' twice"),
        ({"share_of_fills": "0.5"}, "share_of_fills must be a number, got '0.5'"),
        ({"share_of_fills": True}, "share_of_fills must be a number, got True"),
        ({"share_of_fills": 1.01}, r"must be in \[0, 1\]"),
        ({"share_of_fills": 0}, "must be above 0"),
        ({"sanity_below": float("nan")}, "must be a number, got nan"),
        ({"stability_above": -1.5}, r"must be in \[-1, 1\]"),
        ({"beats_random_by": -0.1}, r"must be in \[0, 100\]"),
        ({"healthy_share": 2}, r"must be in \[0, 1\]"),
        ({"min_images": 2.5}, "must be a whole number"),
        ({"min_images": 1}, r"must be in \[2, "),
        ({"per_class": 1}, "per_class must be true or false, got 1"),
        ([1], "must be a table"),
    ],
)
def test_what_is_wrong_gets_one_sentence(raw, match):
    with pytest.raises(InvalidParameter, match=match) as caught:
        Criteria.parse(raw)
    assert "[criteria]" in str(caught.value)


def test_criteria_that_are_as_fixed_say_nothing():
    assert changed_since(fixed({"share_of_fills": 0.8}), study({"share_of_fills": 0.8})) == ""


def test_a_default_that_is_written_out_later_changes_nothing():
    assert changed_since(fixed({}), study({"share_of_fills": 0.8})) == ""


def test_a_threshold_moved_after_the_fact_is_named_with_both_values():
    sentence = changed_since(fixed({"share_of_fills": 0.8, "min_images": 20}), study({"share_of_fills": 0.4}))
    assert sentence == "The criteria were changed after the study began: share_of_fills was 0.8 and is 0.4."


def test_a_manifest_that_was_changed_together_with_the_study_is_found_out():
    forged = {**fixed({"share_of_fills": 0.8}), "criteria": {"share_of_fills": 0.4}}
    assert "changed by hand" in changed_since(forged, study({"share_of_fills": 0.4, "min_images": 3}))


def test_a_manifest_that_only_pretends_other_criteria_is_still_held_against_its_digest():
    forged = {**fixed({"share_of_fills": 0.8}), "criteria": {"share_of_fills": 0.4}}
    assert "changed by hand" in changed_since(forged, study({"share_of_fills": 0.4}))


def test_without_fixed_criteria_nobody_can_tell():
    assert "nobody can tell" in changed_since({}, study({}))


def test_the_manifest_of_the_shipped_example_fixes_its_criteria():
    folder = ROOT / "audit_core" / "examples" / "study"
    if not (folder / "manifest.json").is_file():
        pytest.skip("no example study is there")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert changed_since(manifest, Study.parse((folder / "study.toml").read_text(encoding="utf-8"))) == ""


def test_importing_the_verdicts_loads_no_torch():
    code = (
        "import sys, audit_core.study.criteria, audit_core.study.judgement, audit_core.study.predictions, "
        "audit_core.study.guidance; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
