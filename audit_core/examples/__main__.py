"""Compute the shipped examples anew: ``python -m audit_core.examples``."""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from typing import Any

from audit_core import audit, examples, measuring
from audit_core.examples import FOLDER, IMAGE, SHIPPED
from audit_core.explainers import EXPLAINERS
from audit_core.keys import Choice
from audit_core.selftest import identity, self_test
from audit_core.store import Store
from audit_core.workbench import Workbench
from models import zoo


def main() -> None:
    """Run self-tests, audits and measures in a scratch store; write what they give beside this file."""
    for name, shipped in (("self-tests.json", examples.self_tests), ("measures.json", examples.measures)):
        (FOLDER / name).unlink(missing_ok=True)  # else the old ones would be found instead of being made anew
        shipped.cache_clear()
    _write("self-tests.json", _self_tests())
    examples.self_tests.cache_clear()
    kept: dict[str, Any] = {}  # Any: JSON
    with tempfile.TemporaryDirectory() as scratch:
        bench = Workbench(Store(scratch), "cpu")
        for stem, (checkpoint, explainer, fill) in SHIPPED.items():
            record = audit.run(audit.spec(checkpoint, explainer, fill, IMAGE), bench)
            path = FOLDER / f"{stem}.json"
            path.write_text(record.dumps() + "\n", encoding="utf-8")
            sys.stdout.write(f"{path.name}: deletion {record.deletion_auc:.3f}, insertion {record.insertion_auc:.3f}\n")
            session, measured = measuring.open_session(record, bench), measuring.measure(record, bench)
            kept |= {session.key(Choice(name)): found.to_json() for name, found in measured.items()}
    _write("measures.json", kept)


def _self_tests() -> dict[str, Any]:  # Any: JSON
    """Every explainer on every shipped checkpoint, at its defaults."""
    found = {}
    for name, explainer in itertools.product(zoo.names(), EXPLAINERS):
        loaded, choice = zoo.load(name), EXPLAINERS.complete(Choice(explainer))
        built = EXPLAINERS.build(choice)
        if built.reads not in audit.UNTESTED and not built.refuse(loaded.card):
            outcome = self_test(loaded.card, loaded.module, built)
            found[identity(loaded.card, choice)] = outcome.to_json()
            sys.stdout.write(f"{name} · {explainer}: {outcome.reason or 'works'}\n")
    return found


def _write(name: str, content: dict[str, Any]) -> None:  # Any: JSON
    (FOLDER / name).write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
