"""What a study built on a page may open, and where one of its images may be looked at: the page is served to others."""

from __future__ import annotations

import re
from dataclasses import replace

from audit_core.data import DATASETS
from audit_core.errors import InvalidParameter
from audit_core.keys import Choice
from audit_core.study.definition import Entry, Study
from audit_core.study.presets import demo
from models import zoo
from models.wafers import CLASSES

COMMAND = "python -m audit_core study run study.toml --out FOLDER"
_SAMPLE = re.compile(r"synthetic:sample:(\d{1,4})")
MOST = 1000  # generated maps that a page's study may draw from
SAMPLES = 90  # wafer maps that the spot audit can open by link


def check(study: Study) -> None:
    """``InvalidParameter`` unless the study names shipped or uploaded checkpoints and generated images only."""
    for entry in study.checkpoints:
        if entry.path:
            raise InvalidParameter(
                f"checkpoint {entry.name!r} names a file of this server (path = …), which a page opens for nobody; add "
                f"the file on the Checkpoints page, or run the study on the command line: {COMMAND}"
            )
        if entry.name not in zoo.names() and not entry.name.startswith("custom:"):
            raise InvalidParameter(
                f"no checkpoint named {entry.name!r} ships with the project; known: {', '.join(zoo.names())}; your own "
                "gets its name (custom:…) on the Checkpoints page"
            )
    chosen = Choice.parse(study.images.dataset)
    if chosen.name != "synthetic":
        raise InvalidParameter(
            f"the data set {chosen.name!r} lies on this server, and a page opens no files; take dataset = "
            f'"synthetic", or run the study on your own data on the command line: {COMMAND}'
        )
    if (made := dict(DATASETS.complete(chosen).params)["n"]) > MOST:
        raise InvalidParameter(
            f"a study of this page has at most {MOST:,} generated maps to draw from, got n = {made:,}"
        )


def adapted(study: Study) -> tuple[Study, list[str]]:
    """The study as a page may run it, and a sentence for each thing that had to be replaced."""
    told, entries, images = [], [entry for entry in study.checkpoints if _shipped(entry)], study.images
    if len(entries) < len(study.checkpoints):
        gone = [entry.name for entry in study.checkpoints if entry not in entries]
        told.append(f"checkpoints that do not ship with the project were left out ({', '.join(gone)})")
    if Choice.parse(images.dataset).name != "synthetic":
        told.append(f"the images of {Choice.parse(images.dataset).name} were replaced by generated wafer maps")
        few = min(images.per_class, 3) or 3
        out = tuple(name for name in images.leave_out if name in CLASSES)
        images = replace(demo().images, per_class=few, seed=images.seed, leave_out=out)
    return replace(study, checkpoints=tuple(entries) or demo().checkpoints, images=images), told


def _shipped(entry: Entry) -> bool:
    return not entry.path and (entry.name in zoo.names() or entry.name.startswith("custom:"))


def openable(reference: str) -> bool:
    """Whether the spot audit opens this very image by link."""
    found = _SAMPLE.fullmatch(reference)
    return bool(found) and int(found[1]) < SAMPLES if found else reference.startswith("upload:")


def lookalike(label: str) -> str | None:
    """The first generated wafer map of a class; None where the class is no wafer defect."""
    return f"synthetic:sample:{CLASSES.index(label)}" if label in CLASSES else None


def checkpoint(name: str, family: str) -> str | None:
    """The checkpoint that the spot audit can open for a row: the very one, else the shipped one of its family."""
    if name in zoo.names() or name.startswith("custom:"):
        return name
    return next((one for one in zoo.names() if zoo.card(one).family == family), None)
