"""A study on disk: what was asked, what was planned, which parts are there. Everything needed to repeat it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import audit_core
from audit_core.errors import BadData, InvalidParameter
from audit_core.study import tables
from audit_core.study.definition import Study
from audit_core.study.task import Task

if TYPE_CHECKING:
    from audit_core.study.plan import Plan

STUDY, MANIFEST, PARTS, FAILURES = "study.toml", "manifest.json", "parts", "failures"


@dataclass(frozen=True)
class StudyFolder:
    """``root`` holds study.toml, manifest.json, parts/ and failures/."""

    root: Path

    def create(self, plan: Plan) -> None:
        """Write study, manifest and refused cells; ``InvalidParameter`` where another study stands already.

        The same study is taken up where it was left: nothing that is there is computed again.
        """
        if (self.root / STUDY).is_file() and self.study().key != plan.study.key:
            raise InvalidParameter(f"{self.root} holds another study; give another folder, or delete this one")
        (self.root / PARTS).mkdir(parents=True, exist_ok=True)
        if not (self.root / MANIFEST).is_file():
            _write(self.root / STUDY, plan.study.dumps())
            from audit_core.study.rows import refused_rows  # imports torch, which reading a study does not need

            rows = tables.as_table(refused_rows(plan), tables.MEASURES)
            if rows.num_rows:
                tables.write(rows, self.root / PARTS / "measures-refused.parquet")
            _write(self.root / MANIFEST, json.dumps(manifest(plan, self.root), indent=1, ensure_ascii=False) + "\n")
        elif self.study().criteria != plan.study.criteria:
            raise InvalidParameter(
                f"the criteria of {self.root} were fixed when the study began; keep them, or begin another study"
            )
        elif {task.id for task in self.tasks()} != {task.id for task in plan.tasks}:
            raise InvalidParameter(
                f"weights, images or code are no longer those that {self.root} was begun with: its results would be "
                "mixed; give another folder"
            )

    def study(self) -> Study:
        """The study as it stands in the folder; ``BadData`` where there is none."""
        try:
            return Study.parse((self.root / STUDY).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise BadData(f"{self.root} holds no study ({STUDY} is missing); give the folder of study run") from None

    def manifest(self) -> dict[str, Any]:  # Any: JSON data
        """What was planned and with what it is made; ``BadData`` where it is missing or broken."""
        try:
            return json.loads((self.root / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadData(f"{self.root / MANIFEST} cannot be read ({error}); run the study again") from None

    def tasks(self) -> tuple[Task, ...]:
        """The planned tasks, in their order."""
        try:
            return tuple(Task(**raw) for raw in self.manifest()["tasks"])
        except (KeyError, TypeError):
            raise BadData(f"{self.root / MANIFEST} lists no tasks; it is no manifest of a study") from None

    def done(self, task: Task) -> bool:
        """Whether the results of a task are there: its measures are written last."""
        return self.measures(task).is_file()

    def measures(self, task: Task) -> Path:
        """Where the measures of a task stand."""
        return self.root / PARTS / f"measures-{task.id}.parquet"

    def curves(self, task: Task) -> Path:
        """Where the curves of a task stand."""
        return self.root / PARTS / f"curves-{task.id}.parquet"

    def keep(self, task: Task, measures: Any, curves: Any) -> None:  # Any: pyarrow tables
        """Write a task's results, each file whole or not at all; a second writer of the same task changes nothing."""
        if curves.num_rows:
            tables.write(curves, self.curves(task))
        tables.write(measures, self.measures(task))
        (self.root / FAILURES / f"{task.id}.json").unlink(missing_ok=True)

    def fail(self, task: Task, reason: str, trace: str) -> None:
        """Remember why a task failed; it is tried again when the study is resumed."""
        words = {"checkpoint": task.checkpoint, "explainer": task.explainer, "reason": reason, "trace": trace}
        _write(self.root / FAILURES / f"{task.id}.json", json.dumps(words))

    def failures(self) -> list[dict[str, str]]:
        """Reasons of the tasks that failed in the last run and were not done since, by whomever."""
        found = sorted((self.root / FAILURES).glob("*.json"))
        return [_reason(path) for path in found if not (self.root / PARTS / f"measures-{path.stem}.parquet").is_file()]

    def borrow_parts(self, tasks: Sequence[Task]) -> int:
        """Take whole parts of equal tasks from studies that stand beside this one; returns how many."""
        taken = 0
        missing = {self.measures(task).name: task for task in tasks if not self.done(task)}
        for path in sorted(self.root.resolve().parent.glob(f"*/{PARTS}/measures-*.parquet")):
            task = missing.pop(path.name, None) if path.parent.parent != self.root.resolve() else None
            if task is None:
                continue
            curves = path.with_name(self.curves(task).name)
            if not (tables.whole(path) and (not curves.is_file() or tables.whole(curves))):
                continue
            for source, target in ((curves, self.curves(task)), (path, self.measures(task))):
                if source.is_file():
                    temporary = _beside(target)
                    shutil.copyfile(source, temporary)
                    temporary.replace(target)
            taken += 1
        return taken


def manifest(plan: Plan, root: Path) -> dict[str, Any]:  # Any: JSON data
    """Everything needed to repeat the study and to tell where it was made."""
    from audit_core import audit  # torch, likewise

    study = plan.study
    return {
        "title": study.title,
        "note": study.note,
        "key": study.key,
        "criteria": dict(study.criteria),
        "criteria_sha256": criteria_digest(study),
        "triplecheck": audit_core.__version__,
        "versions": audit.versions((*audit.PACKAGES, "pyarrow", "duckdb")),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "audit_core", "study", "run", STUDY, "--out", root.name]),
        "fills": list(study.fills),
        "checkpoints": [
            {
                "name": member.entry.name,
                "family": member.family,
                "training_seed": member.training_seed,
                "architecture": member.card.architecture,
                "readout": member.card.readout,
                "attention": member.card.attention,
                "encoding": member.card.encoding,
                "weights_sha256": member.card.weights_sha256,
                "classes": list(member.card.classes),
                "scores": [dataclasses.asdict(evaluation) for evaluation in member.card.evaluations],
            }
            for member in plan.members
        ],
        "contenders": contenders(plan),
        "images": [dataclasses.asdict(picture) for picture in plan.pictures],
        "check_units": list(plan.check_units),
        "refused": [dataclasses.asdict(cell) for cell in plan.refused],
        "tasks": [dataclasses.asdict(task) for task in plan.tasks],
    }


def contenders(plan: Plan) -> list[dict[str, Any]]:  # Any: JSON data
    """Each (family, explainer) with its role and how close the explainer stands to the readout."""
    from audit_core.explainers import EXPLAINERS
    from audit_core.keys import Choice
    from audit_core.readouts import relation
    from audit_core.study.plan import contender_of, role_of  # torch, likewise

    found: dict[str, dict[str, Any]] = {}
    for member in plan.members:
        for explainer in dict.fromkeys((*member.entry.explainers, *plan.study.explainers)):
            built = EXPLAINERS.build(Choice.parse(explainer))
            badge = relation(built.reads, member.card, str(getattr(built, "layer", "")))
            entry = found.setdefault(
                contender_of(member, explainer),
                {
                    "contender": contender_of(member, explainer),
                    "family": member.family,
                    "explainer": explainer,
                    "role": role_of(explainer),
                    "title": built.title,
                    "badge": badge.badge,
                    "badge_sentence": badge.sentence,
                    "checkpoints": [],
                },
            )
            entry["checkpoints"].append(member.entry.name)
    return list(found.values())


def criteria_digest(study: Study) -> str:
    """sha256 (hex) of the criteria as they were fixed."""
    text = json.dumps(study.criteria, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A temporary name that no other process on any machine uses."""
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")


def _reason(path: Path) -> dict[str, str]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = "failed, and the reason could not be written down; resume the study"
        return {"checkpoint": "", "explainer": path.stem, "reason": told, "trace": ""}
