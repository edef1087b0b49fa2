"""The contract suite has teeth: a bad plug-in fails in many ways, and each of its faults is found."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.conftest import ROOT

FAULTS = {
    "test_maps_are_finite_float32_of_the_images_size": "NaN",
    "test_stated_evaluations_are_those_spent": "more forwards than stated",
    "test_maps_are_deterministic_and_leave_the_input_alone": "unseeded, input changed",
    "test_maps_do_not_depend_on_the_rest_of_the_batch": "unseeded",
    "test_the_model_is_as_found": "mode and hook left behind",
}


def test_a_bad_plugin_fails_the_contract():
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "tests.bad_plugin",
               "tests/test_contract.py", "-k", "bad-plugin"]  # fmt: skip
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    failed = set(re.findall(r"^(?:FAILED|ERROR) tests/test_contract.py::(\w+)", run.stdout, re.MULTILINE))
    assert run.returncode == 1, run.stdout
    assert failed >= set(FAULTS), f"not found: {set(FAULTS) - failed}"
    assert len(failed) >= 5
