"""The layer law, read from the syntax trees and tried in processes of their own."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = ("app.py", "pages/**/*.py", "audit_core/**/*.py", "models/**/*.py")
CODE = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
LAW = {
    "app.py": {"torch", "torchvision", "timm", "scipy", "sklearn", "skimage", "captum", "pytorch_grad_cam"},
    "pages": {"torchvision", "timm", "scipy", "sklearn", "skimage", "captum", "pytorch_grad_cam"},
    "audit_core": {"streamlit", "pages", "app", "tests"},
    "models": {"streamlit", "audit_core", "pages", "app", "tests"},
}
MACHINE = {
    "torch.set_num_threads", "torch.get_num_threads", "torch.cuda", "torch.cuda.is_available",
    "torch.cuda.get_device_name", "torch.cuda.device_count",
}
LIGHT = ("audit_core", "audit_core.record", "audit_core.store", "audit_core.jobs", "models.cards", "models.zoo",
         "audit_core.study.shelf", "audit_core.study.analysis", "audit_core.i2x.analysis",
         "audit_core.i2x.comparisons", "audit_core.i2x.ranking", "audit_core.i2x.beside")  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, full module name) of every import, also of those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or ""


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of a chain of names, else the part of it that is one."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def forbidden_calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls and words that run foreign code, show foreign markup or remember models and arrays by accident."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name, words = dotted(node.func), {word.arg: word.value for word in node.keywords}
            if name in ("eval", "exec", "compile", "__import__") or name.endswith(("pickle.load", "pickle.loads")):
                yield node.lineno, name
            weights_only = words.get("weights_only")
            if name == "torch.load" and not (isinstance(weights_only, ast.Constant) and weights_only.value is True):
                yield node.lineno, "torch.load without weights_only=True"
            allowed = words.get("allow_pickle")
            if allowed is not None and not (isinstance(allowed, ast.Constant) and allowed.value is False):
                yield node.lineno, f"{name} with allow_pickle"
            if "unsafe_allow_html" in words:
                yield node.lineno, "unsafe_allow_html"
        if isinstance(node, ast.Attribute | ast.Name) and "memoize" in dotted(node).split("."):
            yield node.lineno, "memoize"


def test_there_is_code_to_judge() -> None:
    assert {name_of(path).split("/")[0] for path in CODE} >= {"audit_core", "models"}
    assert len(CODE) > 30


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_no_import_points_upwards(path: Path) -> None:
    refused = LAW[name_of(path).split("/")[0]]
    found = [(line, name) for line, name in imported(ast.parse(path.read_text())) if name.split(".")[0] in refused]
    assert not found


@pytest.mark.parametrize("path", [path for path in CODE if name_of(path).startswith("pages/")], ids=name_of)
def test_pages_ask_torch_about_the_machine_and_nothing_else(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imports = [(line, name) for line, name in imported(tree) if name.split(".")[0] == "torch"]
    assert all(name == "torch" for _, name in imports)
    uses = {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {use for use in uses if use.startswith("torch.")} <= MACHINE


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_nothing_runs_foreign_code(path: Path) -> None:
    assert not list(forbidden_calls(ast.parse(path.read_text())))


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_no_boolean_is_called_just_mask(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = [(n.lineno, n.id) for n in ast.walk(tree) if isinstance(n, ast.Name)]
    names += [(n.lineno, n.arg) for n in ast.walk(tree) if isinstance(n, ast.arg)]
    assert not [place for place in names if place[1] == "mask"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("eval('1')", "eval"),
        ("import pickle\npickle.load(f)", "pickle.load"),
        ("torch.load(p)", "torch.load without weights_only=True"),
        ("torch.load(p, weights_only=flag)", "torch.load without weights_only=True"),
        ("np.load(p, allow_pickle=True)", "np.load with allow_pickle"),
        ("st.markdown(x, unsafe_allow_html=True)", "unsafe_allow_html"),
        ("cache.memoize()(f)", "memoize"),
    ],
)
def test_the_judge_sees_what_it_should(source: str, found: str) -> None:
    assert found in [name for _, name in forbidden_calls(ast.parse(source))]
    for harmless in ("torch.load(p, weights_only=True)", "model.eval()", "np.load(p, allow_pickle=False)"):
        assert not list(forbidden_calls(ast.parse(harmless)))


def in_its_own_process(code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_light_modules_import_no_torch() -> None:
    code = f"""
import importlib, sys
heavy = {{"torch", "timm", "torchvision", "streamlit", "pytorch_grad_cam"}}
for name in {LIGHT!r}:
    importlib.import_module(name)
    if found := heavy & set(sys.modules):
        print(name, sorted(found))
        break
"""
    assert in_its_own_process(code) == ""


def test_core_and_models_run_without_streamlit() -> None:
    code = """
import importlib, pkgutil, sys
sys.modules["streamlit"] = None
import audit_core, models
count = 0
for package in (audit_core, models):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            count += 1
print(count)
"""
    assert int(in_its_own_process(code)) > 25
