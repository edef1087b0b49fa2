"""``python -m tests.bench.i2x RUN --data mnist:path=FOLDER``: time and memory of I2X, from images to beta, by size.

Each size is a process of its own, so that its peak memory is its own. Processor time is printed beside the wall clock:
on a busy machine only the first can be compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from audit_core.i2x.making import analyse
from audit_core.i2x.runs import open_run
from audit_core.i2x.sample import open_sample
from audit_core.i2x.settings import Settings


def main() -> None:
    """Measure every size, then say how well a straight line through the origin fits."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.i2x", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--prototypes", type=int, default=32)
    parser.add_argument("--per-class", type=int, nargs="+", default=[750, 1500, 3000, 0], help="0: all images")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked)))
        return
    rows = []
    for size in asked.per_class:
        words = [sys.executable, "-m", "tests.bench.i2x", str(asked.run), "--data", asked.data, "--split", asked.split,
                 "--prototypes", str(asked.prototypes), "--threads", str(asked.threads), "--per-class", str(size),
                 "--one"]  # fmt: skip
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], file=sys.stderr, flush=True)
    print(table(rows))


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """One size: seconds to read the images, seconds of the analysis, peak GiB."""
    if asked.threads:
        torch.set_num_threads(asked.threads)
    run = open_run(asked.run)
    began = time.perf_counter()
    sample = open_sample(asked.data, asked.split, run.final().card, asked.per_class[0])
    read = time.perf_counter() - began
    with TemporaryDirectory() as folder:
        began, spent = time.perf_counter(), time.process_time()
        analyse(run, sample, Settings(prototypes=asked.prototypes), Path(folder))
        wall, cpu = time.perf_counter() - began, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"images": len(sample), "checkpoints": len(run.steps), "read": read, "wall": wall, "cpu": cpu, "peak": peak}


def table(rows: list[dict[str, float]]) -> str:
    """Markdown, and the exponent of the growth: 1 is linear, below 1 is better."""
    lines = ["| images | checkpoints | reading, s | analysis, s | processor, s | µs per image x step | peak, GiB |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        each = 1e6 * row["cpu"] / row["images"] / row["checkpoints"]
        lines.append(
            f"| {row['images']:,} | {row['checkpoints']} | {row['read']:.1f} | {row['wall']:.1f} | {row['cpu']:.1f} | "
            f"{each:.0f} | {row['peak']:.2f} |"
        )
    if len(rows) > 1:
        slope = np.polyfit(np.log([row["images"] for row in rows]), np.log([row["cpu"] for row in rows]), 1)[0]
        lines.append(f"\nprocessor time grows with images to the power {slope:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
