"""Compute the shipped examples anew: ``python -m audit_core.examples``."""

from __future__ import annotations

import sys
import tempfile

from audit_core import audit
from audit_core.examples import FOLDER, IMAGE, SHIPPED
from audit_core.store import Store
from audit_core.workbench import Workbench


def main() -> None:
    """Run every shipped audit in a scratch store and write its record beside this file."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = Workbench(Store(scratch), "cpu")
        for stem, (checkpoint, explainer, fill) in SHIPPED.items():
            record = audit.run(audit.spec(checkpoint, explainer, fill, IMAGE), bench)
            path = FOLDER / f"{stem}.json"
            path.write_text(record.dumps() + "\n", encoding="utf-8")
            sys.stdout.write(f"{path.name}: deletion {record.deletion_auc:.3f}, insertion {record.insertion_auc:.3f}\n")


if __name__ == "__main__":
    main()
