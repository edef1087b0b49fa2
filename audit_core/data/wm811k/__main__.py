"""One-time converter: ``python -m audit_core.data.wm811k LSWMD.pkl wm811k.npz``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from audit_core.data.wm811k.lswmd import read_pickle
from audit_core.errors import AuditError
from models.wafers import write_npz


def main(argv: list[str] | None = None) -> int:
    """Convert; returns the exit code (2 with one sentence on stderr for what the user can mend)."""
    parser = argparse.ArgumentParser(
        prog="python -m audit_core.data.wm811k",
        description="Read the labelled wafer maps of LSWMD.pkl without running the pickle, and write them as npz.",
    )
    parser.add_argument("source", type=Path, help="LSWMD.pkl of WM-811K")
    parser.add_argument("target", type=Path, help="npz file to write")
    options = parser.parse_args(argv)
    try:
        maps, unlabelled = read_pickle(options.source)
        write_npz(options.target, maps)
    except (AuditError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    lots = "their lots are not known" if maps.lots is None else f"{len(set(maps.lots) - {''})} lots kept"
    written = f"{len(maps)} labelled maps written to {options.target}"
    sys.stdout.write(f"{written}, {unlabelled} unlabelled ones skipped, {lots}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
