"""``python -m tests.bench``: measure, then print the table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch

from models import zoo
from tests.bench.report import CLOCKS, Row, say, table
from tests.bench.stage import Options


def main() -> None:
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure what the project must reach.")
    sections = "1 engine, 2 rivals, 3 latency, 4 memory, 5 imputer, 6 study"
    parser.add_argument("--only", default="1,2,3,4,5,6", help=sections)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, masks and audits: a look, no result")
    parser.add_argument("--threads", type=int, default=0, help="of torch, in sections 1 and 2; 0 is its own choice")
    help_clock = "cpu counts processor time: for a busy machine, with --threads 1"
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help=help_clock)
    parser.add_argument("--checkpoint", action="append", choices=zoo.names(), help="may be repeated; all, unless named")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    clock = CLOCKS[asked.clock]
    names = tuple(asked.checkpoint or zoo.names())
    options = Options(3, 200, 10, clock, names) if asked.quick else Options(5, 2000, 50, clock, names)
    rows = []
    for row in measured({int(n) for n in asked.only.split(",")}, options):
        say(" | ".join(row.cells()))
        rows.append(row)
    print(table(rows))
    if "2" in asked.only:
        from tests.bench.rivals import NOTE

        print(f"\n{NOTE}")


def measured(sections: set[int], options: Options) -> Iterator[Row]:
    """Rows of the sections, as they are found."""
    if 1 in sections:
        from tests.bench import engine

        yield from engine.rows(options)
    if 2 in sections:
        from tests.bench import rivals

        yield from rivals.rows(options)
    if sections & {3, 4}:
        from tests.bench import dashboard

        yield from dashboard.rows(options, sections)
    if 5 in sections:
        from tests.bench import imputer

        yield from imputer.rows(options)
    if 6 in sections:
        from tests.bench import throughput

        yield from throughput.rows(options)


if __name__ == "__main__":
    main()
