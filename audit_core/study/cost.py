"""What a study will take: model evaluations, hours and bytes, from a look at how fast its checkpoints answer here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from audit_core.borrow import untouched_random_state
from audit_core.classifier import Classifier
from audit_core.study.plan import Member, Plan, Task
from audit_core.workbench import Workbench
from models.cards import ModelCard

BACKWARD = 2  # a backward pass costs about two forwards (Kaplan et al. 2020, section 2.1)
START = 8.0  # seconds until worker processes begin: interpreters, imports, plans
CLEARLY = 1.2  # processes must promise to be so many times faster: cores share their memory's bandwidth


@dataclass(frozen=True)
class Rates:
    """Forwards per second (images) of each checkpoint by name: with ``threads`` threads of torch, and with one."""

    device: str
    threads: int
    together: dict[str, float]
    single: dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """What the tasks will take; seconds of either way, and the executor that is the better choice, with the reason.

    forwards, backwards: in images; disk: bytes; rough by nature: the rates are a look of a second.
    """

    forwards: int
    backwards: int
    disk: int
    in_process: float
    processes: float
    executor: str
    sentence: str

    @property
    def seconds(self) -> float:
        """Seconds with the executor that was chosen."""
        return self.processes if self.executor == "processes" else self.in_process


def probe(plan: Plan, bench: Workbench, seconds: float = 1.0) -> Rates:
    """Forwards per second of the study's checkpoints, in ``seconds`` of trying in all, after each was loaded.

    Checkpoints of one architecture and input size are equally fast, so one of them is tried. The number of torch's
    threads is as found afterwards.
    """
    kinds = {_kind(member.card): member for member in plan.members}
    each = seconds / (2 * len(kinds))
    threads = torch.get_num_threads()
    found = {kind: _pair(member, plan, bench, threads, each) for kind, member in kinds.items()}
    together = {member.entry.name: found[_kind(member.card)][0] for member in plan.members}
    single = {member.entry.name: found[_kind(member.card)][1] for member in plan.members}
    return Rates(str(bench.device), threads, together, single)


def _kind(card: ModelCard) -> tuple[str, tuple[int, int]]:
    return card.architecture, card.input_size


def _pair(member: Member, plan: Plan, bench: Workbench, threads: int, seconds: float) -> tuple[float, float]:
    """Forwards per second with all threads and with one."""
    classifier = bench.classifier(member.reference, plan.study.curves.precision).steady()
    with classifier.lock, untouched_random_state():
        together = _rate(classifier, seconds)
        if threads == 1:
            return together, together
        try:
            torch.set_num_threads(1)
            return together, _rate(classifier, seconds)
        finally:
            torch.set_num_threads(threads)


def _rate(classifier: Classifier, seconds: float) -> float:
    """Images per second in batches as large as a study's, smaller where one would already take too long."""
    image = torch.full((1, len(classifier.card.mean), *classifier.card.input_size), 0.5)
    run: Callable[[int], float] = lambda n: _timed(classifier, image.expand(n, -1, -1, -1))
    began = time.perf_counter()
    run(1)  # not counted: the first one allocates
    each = min(run(2), run(2)) / 2
    size = max(1, min(classifier.batch.ceiling, int(seconds / 2 / each)))
    rates = [size / run(size)]
    while time.perf_counter() - began < seconds:
        rates.append(size / run(size))
    return max(rates)


def _timed(classifier: Classifier, pixels: torch.Tensor) -> float:
    began = time.perf_counter()
    classifier.predict(pixels)
    return max(time.perf_counter() - began, 1e-9)


def work(task: Task) -> int:
    """A task's size in forwards."""
    return task.forwards + BACKWARD * task.backwards


def estimate(plan: Plan, rates: Rates, cores: int, tasks: Sequence[Task] | None = None) -> Estimate:
    """What ``tasks`` of the plan (all, unless given) take on this machine, and which executor suits them."""
    chosen = plan.tasks if tasks is None else tasks
    total: Counter[str] = Counter()
    for task in chosen:
        total[task.checkpoint] += work(task)
    in_process = sum(amount / rates.together[name] for name, amount in total.items())
    alone = [work(task) / rates.single[task.checkpoint] for task in chosen]
    busy = max(sum(alone) / cores, max(alone, default=0.0))  # the longest task ends no sooner with more cores
    processes = START + busy
    executor, sentence = _choose(rates, cores, in_process, busy)
    share = len(chosen) / len(plan.tasks) if plan.tasks else 0.0
    return Estimate(
        sum(task.forwards for task in chosen),
        sum(task.backwards for task in chosen),
        int(plan.disk * share),
        in_process,
        processes,
        executor,
        sentence,
    )


def _choose(rates: Rates, cores: int, in_process: float, busy: float) -> tuple[str, str]:
    """The executor and the sentence that says why."""
    processes = START + busy
    if rates.device != "cpu":
        return "in-process", f"In this process: its models are on {rates.device}, which processes would only share."
    if cores < 2:
        return "in-process", "In this process: there is one core."
    gain = in_process / busy if busy else 1.0
    measured = f"{cores} processes with one thread each do {gain:.1f} times the work of one with {_threads(rates)}"
    if gain < CLEARLY:
        return "in-process", f"In this process: {measured}."
    if processes >= in_process:
        return "in-process", f"In this process: {measured}, but starting them takes about {START:.0f} s."
    return "processes", f"In processes: {measured}."


def _threads(rates: Rates) -> str:
    return "one thread" if rates.threads == 1 else f"{rates.threads} threads"
