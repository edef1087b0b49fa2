"""Every registered explainer, fill and metric says about itself what the Methods page shows, and its witness exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from audit_core.documented import Documented
from audit_core.explainers import EXPLAINERS
from audit_core.explainers.outside import PlugIn
from audit_core.fills import FILLS
from audit_core.metrics import METRICS

ROOT = Path(__file__).parents[1]
FACTS = ("title", "family", "formula", "source", "library", "witness", "pitfalls")
REGISTRIES = (EXPLAINERS, FILLS, METRICS)
ENTRIES = [pytest.param(registry[name], id=f"{registry.kind}-{name}") for registry in REGISTRIES for name in registry]
FILL_FAMILIES = {"constant", "blur", "noise", "data", "imputation"}
NAMED = re.compile(r"(tests/[\w/]+\.py)(?:(?:::\w+)*::(\w+))?")  # a file, and a test in it
LINK = re.compile(r"https?://[\w.\-/%()]+\.[\w.\-/%()]+")


@cache
def named_tests(file: Path) -> frozenset[str]:
    """Names of the tests in a file, also inside classes."""
    tree = ast.parse(file.read_text())
    names = (node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return frozenset(name for name in names if name.startswith("test_"))


def problems(entry: type[Documented], root: Path = ROOT) -> list[str]:
    """What is missing in the facts of ``entry``, in words; a witness may name files and tests below ``tests/``."""
    facts = {name: getattr(entry, name, "") for name in FACTS}
    found = [f"no {name}" for name, text in facts.items() if not isinstance(text, str) or not text.strip()]
    found += [f"no link: {word}" for word in re.findall(r"http\S*", facts["source"]) if not LINK.match(word)]
    for file, test in NAMED.findall(facts["witness"]):
        if not (root / file).is_file():
            found.append(f"no file {file}")
        elif test and test not in named_tests(root / file):
            found.append(f"no test {test} in {file}")
    return found


def existing_tests(entry: type[Documented], root: Path = ROOT) -> list[str]:
    """The tests named in the witness of ``entry`` that are there."""
    named = [(root / file, test) for file, test in NAMED.findall(entry.witness)]
    return [test for file, test in named if file.is_file() and test in named_tests(file)]


@pytest.mark.parametrize("entry", ENTRIES)
def test_all_facts_are_there_and_the_named_tests_exist(entry: type[Documented]) -> None:
    assert problems(entry) == []


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_witness_names_a_test_that_exists(entry: type[Documented]) -> None:
    """All but plug-ins, whose numbers nobody here can vouch for."""
    assert issubclass(entry, PlugIn) or existing_tests(entry)


def test_each_registry_has_entries() -> None:
    assert all(len(registry) > 0 for registry in REGISTRIES)


@pytest.mark.parametrize("name", FILLS)
def test_a_fill_is_in_a_known_family_and_names_its_source_and_test(name: str) -> None:
    assert FILLS[name].family in FILL_FAMILIES
    assert "https://" in FILLS[name].source or "this project's" in FILLS[name].source
    assert "tests/test_fills.py::" in FILLS[name].witness


def test_the_check_finds_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_it.py").write_text("class TestIt:\n    def test_there(self): pass\n")

    class Bare(Documented):
        title = "Bare"

    assert problems(Bare) == ["no family", "no formula", "no source", "no witness", "no pitfalls"]

    class Full(Documented):
        title = family = formula = pitfalls = "words"
        source = "Someone 2020, https://example.org/paper"
        witness = "numpy: tests/test_it.py::test_there and tests/test_it.py::TestIt::test_there"

    assert problems(Full, tmp_path) == []
    assert existing_tests(Full, tmp_path) == ["test_there", "test_there"]
    Full.witness = "tests/test_it.py::test_gone, tests/test_gone.py::test_there, tests/test_it.py"
    assert problems(Full, tmp_path) == ["no test test_gone in tests/test_it.py", "no file tests/test_gone.py"]
    assert existing_tests(Full, tmp_path) == [], "a file alone is no test"
    Full.source = "http://nowhere"
    assert "no link: http://nowhere" in problems(Full, tmp_path)
