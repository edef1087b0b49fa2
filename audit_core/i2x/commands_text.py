"""What the I2X commands say: plain values for ``--json``, and lines for the screen."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from audit_core.i2x.analysis import Analysis
from audit_core.i2x.effects import table
from audit_core.i2x.explanation import class_roles, competition, marked, pair_roles
from audit_core.i2x.prototypes import Prototypes
from audit_core.i2x.ranking import RankPath
from audit_core.i2x.sample import Sample
from audit_core.i2x.strategies import Comparison, Outcome

Words = dict[str, Any]  # Any: JSON values
DIGITS = 5


def prototypes(found: Prototypes, sample: Sample) -> Words:
    """Sizes and most typical places of every prototype."""
    shares = found.shares
    return {
        "layer": found.layer,
        "grid": list(found.grid),
        "count": found.count,
        "variance_kept": _plain(found.explained),
        "judged": [[count, _plain(score)] for count, score in found.judged],
        "prototypes": [
            {
                "prototype": k,
                "locations": _plain(shares[:, k].mean()),
                "images": int((shares[:, k] > 0).sum()),
                "strongest": [[sample.references[i], row, column] for i, row, column in found.strongest(k, 5)],
            }
            for k in range(found.count)
        ],
    }


def trajectory(made: Analysis) -> Words:
    """Accuracy, and per class the mean confidence in it and the mean intensities, at every checkpoint."""
    seen = made.trajectory
    classes = {}
    for c, name in enumerate(made.classes):
        members = made.of_classes(c)
        if members.any():
            classes[name] = {
                "images": int(members.sum()),
                "confidence": _plain(seen.mean_confidence(members)[:, c]),
                "intensity": _plain(seen.mean_intensity(members)),
            }
    accuracy = _plain(seen.accuracy)
    return {"steps": list(seen.steps), "accuracy": accuracy, "images": len(seen.labels), "classes": classes}


def explanation(made: Analysis, pair: tuple[int, int]) -> Words:
    """beta and its quality per transition, roles per class and between two classes, competition."""
    seen = made.trajectory
    a, b = pair
    effects = made.pushes(made.of_classes(a, b))
    between = [dataclasses.asdict(role) for role in pair_roles(effects, made.present, seen.labels, (a, b))]
    roles = {
        name: [
            dataclasses.asdict(role)
            for role in class_roles(made.pushes(made.of_classes(c)), made.present, seen.shares, seen.labels, c)
            if role.kind != "other"
        ]
        for c, name in enumerate(made.classes)
    }
    return {
        "steps": list(seen.steps),
        "marked": marked(made.transitions),
        "transitions": [_transition(made, t) for t in range(len(made.transitions))],
        "classes": _plain(roles),
        "pair": [made.classes[a], made.classes[b]],
        "between": _plain(between),
    }


def _transition(made: Analysis, t: int) -> Words:
    one = made.transitions[t]
    lead = int(np.abs(made.pushes()[t]).max(1).argmax())
    up, down = competition(one.beta, lead)
    return {
        "from": made.trajectory.steps[t],
        "to": made.trajectory.steps[t + 1],
        "groups": one.groups,
        "noise": _plain(one.noise),
        "images": one.images,
        "lambda": _plain(one.penalty),
        "condition": _plain(one.condition),
        "left_out_error": _plain(one.error),
        "driven_by_lambda": one.driven_by_penalty,
        "movement": _plain(one.movement),
        "leading_prototype": {
            "prototype": lead,
            "up": [made.classes[c] for c in up],
            "down": [made.classes[c] for c in down],
        },
        "beta": _plain(one.beta),
    }


def comparison(outcomes: Sequence[Outcome], asked: Comparison, classes: Sequence[str], test: int) -> Words:
    """The strategy table."""
    return {
        "pair": [classes[c] for c in asked.pair],
        "prototype": asked.curation.prototype,
        "share": asked.curation.least,
        "only": [classes[c] for c in asked.curation.classes],
        "learning_rate": asked.recipe.learning_rate,
        "repeats": asked.repeats,
        "test_images": test,
        "trained": {outcome.strategy: outcome.trained for outcome in outcomes if outcome.repeat == 0},
        "strategies": [_plain(dataclasses.asdict(row)) for row in table(outcomes)],
    }


def rank_path(path: RankPath) -> Words:
    """Ranks and agreement with the last checkpoint, per fill."""
    return {
        "metric": path.metric,
        "better": path.better,
        "steps": list(path.steps),
        "images": path.images,
        "explainers": list(path.explainers),
        "rank_path": [
            {
                "fill": fill,
                "ranks": _plain(path.ranks[fill].rank),
                "tau": [_plain(dataclasses.asdict(one)) for one in path.tau[fill]],
                "means": _plain(path.means[:, :, f]),
            }
            for f, fill in enumerate(path.fills)
        ],
    }


def lines(words: Words) -> str:
    """The same for people: one line per prototype, checkpoint, transition or strategy."""
    out = []
    for entry in words.get("prototypes", []):
        out.append(f"P-{entry['prototype']}: {entry['locations']:.1%} of the locations, {entry['images']} images")
    if "accuracy" in words:
        pairs = zip(words["steps"], words["accuracy"], strict=True)
        out += [f"step {step}: accuracy {value:.4f}" for step, value in pairs]
    for entry in words.get("transitions", []):
        lead = entry["leading_prototype"]
        caution = "; fewer groups than prototypes, lambda decides" if entry["driven_by_lambda"] else ""
        out.append(
            f"step {entry['from']} to {entry['to']}: {entry['groups']} groups, {entry['noise']:.0%} noise, confidence "
            f"moved {entry['movement']:.3f}; P-{lead['prototype']} up {', '.join(lead['up']) or 'none'}, down "
            f"{', '.join(lead['down']) or 'none'}{caution}"
        )
    for entry in words.get("between", [])[:5]:
        out.append(
            f"{' / '.join(words['pair'])}: P-{entry['prototype']} {entry['kind']}, alternation "
            f"{entry['alternation']:.2f}, score {entry['score']:.2f}"
        )
    for entry in words.get("strategies", []):
        out.append(
            f"{entry['strategy']}: accuracy {entry['accuracy']:.4f} ± {entry['accuracy_sd']:.4f}, "
            f"{' ↔ '.join(words['pair'])} {entry['confusions']:.2f} ± {entry['confusions_sd']:.2f} (n {entry['n']})"
            + _against(entry)
        )
    for entry in words.get("rank_path", []):
        told = [f"{step}: {_number(one['value'])}" for step, one in zip(words["steps"], entry["tau"], strict=True)]
        out.append(f"{entry['fill']}: tau with the last checkpoint at step {', '.join(told)}")
    out += [f"left out: {file}: {reason}" for file, reason in words.get("broken", [])]
    return "\n".join(out) + "\n"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:+.2f}"


def _against(entry: Words) -> str:
    told = entry["confusions_difference"]
    if told is None:
        return ""
    interval = "no interval" if told["low"] is None else f"95 % {told['low']:+.2f} to {told['high']:+.2f}"
    return f"; confusions against {entry['baseline']} {told['value']:+.2f} ({interval})"


def _plain(value: Any) -> Any:
    """JSON values: arrays as lists, numbers to five significant digits, NaN as null."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
