"""Fixtures for all tests: optional real data, a scratch store, and a guard over global random state."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)  # small models gain nothing from more, and busy machines lose much


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real wafer maps and photographs; absent on most machines, then the test is skipped."""
    folder = Path(os.environ.get("TRIPLECHECK_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent (set TRIPLECHECK_DATA)")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests are skipped unless they are asked for."""
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(autouse=True)
def _global_random_state_untouched():
    """Fail a test after which the global numpy, torch or Python generator has moved."""
    before = (random.getstate(), str(np.random.get_state()), torch.random.get_rng_state())  # noqa: NPY002
    yield
    after = (random.getstate(), str(np.random.get_state()), torch.random.get_rng_state())  # noqa: NPY002
    assert before[0] == after[0], "the global Python generator was used"
    assert before[1] == after[1], "the global numpy generator was used"
    assert torch.equal(before[2], after[2]), "the global torch generator was used"
