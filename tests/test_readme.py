"""The README tells the truth: its code runs, its table is the cards', its commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from audit_core import cli
from models import __main__ as models_cli
from tests.conftest import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def commands(module: str) -> list[list[str]]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[3:] for line in words if line[:3] == ["python", "-m", module]]


def test_the_notebook_lines_run(tmp_path, monkeypatch, capsys):
    code = blocks("python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert "zero" in lines[0]
    assert "blur" in lines[1]
    assert lines[-1] == "True"


def test_the_example_of_a_new_explainer_is_audited(tmp_path):
    """In a process of its own, so that the registry of the other tests stays as it is."""
    example = blocks("python")[1]
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    code = f"""{example}
from audit_core import audit
from audit_core.store import Store
from audit_core.workbench import Workbench

image = np.zeros((1, 9, 9), np.float32)
image[0, 4, 4] = 1.0
expected = np.zeros((9, 9))
expected[2:7, 2:7] = 1.0
np.testing.assert_array_equal(LocalContrast().draw(image, 0), expected)
spec = audit.spec("wafer-resnet18-cbam", "local-contrast:side=3", "blur", "synthetic:sample:3", steps=4)
print(audit.run(spec, Workbench(Store({str(tmp_path)!r}))).badge)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "control", run.stderr


def test_the_table_is_what_the_cards_say():
    shown = TEXT.split("<!-- measured -->\n")[1].split("<!-- /measured -->")[0]
    assert shown == models_cli.measured_table()


@pytest.mark.parametrize("words", commands("audit_core"), ids=" ".join)
def test_audit_commands_parse(words):
    assert cli.parser().parse_args(words).run


@pytest.mark.parametrize("words", commands("models"), ids=" ".join)
def test_model_commands_parse(words):
    assert models_cli.parser().parse_args(words).run


def test_every_verb_is_documented():
    shown = {line[0] for line in commands("audit_core")}
    assert shown == {"list", "audit", "verify", "measure", "matrix", "study", "i2x"}
    assert {line[0] for line in commands("models")} == {"train", "publish"}


def test_the_glossary_gives_each_word_one_meaning():
    rows = re.findall(
        r"^\| (\w+) \| (.+?) \|$", TEXT.split("## Glossary")[1].split("## Caveats")[0], flags=re.MULTILINE
    )
    words = [word for word, _ in rows if word != "word"]
    assert len(words) == len(set(words)) == 27
    assert words == sorted(words)


def test_pictures_and_files_that_are_named_exist():
    for path in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / path).is_file(), path
