"""I2X finds a planted truth again: the parts, their roles, the order in which they became useful, and the signs."""

from __future__ import annotations

import numpy as np
import planted
import pytest
from planted import PLAN, PlantedRun, S, U, X, Y
from sklearn.metrics import adjusted_rand_score

from audit_core.i2x.analysis import Analysis
from audit_core.i2x.explanation import (
    SHARED,
    SPECIALISED,
    UNCERTAIN,
    class_roles,
    competition,
    confused,
    marked,
    most_uncertain,
    pair_roles,
)
from audit_core.i2x.making import analyse
from audit_core.i2x.settings import Settings


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, dict[int, int]]:
    """The analysis, and the prototype that stands for each planted part."""
    sample, parts = planted.images()
    analysis = analyse(PlantedRun(), sample, Settings(prototypes=6, components=5), tmp_path_factory.mktemp("i2x"))
    assert adjusted_rand_score(parts.ravel(), analysis.prototypes.assignments.ravel()) >= 0.9
    names = {
        part: int(np.bincount(analysis.prototypes.assignments[parts == part].astype(int)).argmax()) for part in range(6)
    }
    assert len(set(names.values())) == 6
    return analysis, names


def test_every_planted_rise_has_its_sign(found: tuple[Analysis, dict[int, int]]) -> None:
    analysis, names = found
    for t, rises in enumerate(PLAN):
        for part, label in rises:
            beta = analysis.beta[t]
            assert beta[names[part], label] > 0, (t, part, label)
            assert beta[names[part], label] == beta[:, label].max(), (t, part, label)
            others = [c for c in range(3) if (part, c) not in rises]
            assert (beta[names[part], others] < 0).all(), (t, part, label)


def test_the_order_is_recovered(found: tuple[Analysis, dict[int, int]]) -> None:
    """The prototype that pushes most at each transition is the one that was planted there."""
    analysis, names = found
    for t, rises in enumerate(PLAN):
        pushed = np.abs(analysis.pushes()[t]).max(1)
        assert int(pushed.argmax()) in {names[part] for part, _ in rises}, t


def test_roles_between_two_classes(found: tuple[Analysis, dict[int, int]]) -> None:
    analysis, names = found
    effects, labels = analysis.pushes(analysis.of_classes(0, 1)), analysis.trajectory.labels
    roles = {role.prototype: role for role in pair_roles(effects, analysis.present, labels, (0, 1))}
    assert roles[names[S]].kind == SHARED
    assert roles[names[X]].kind == SPECIALISED
    assert roles[names[X]].net > 0
    assert roles[names[Y]].kind == SPECIALISED
    assert roles[names[Y]].net < 0
    assert roles[names[U]].kind == UNCERTAIN
    assert roles[names[U]].swings == 3
    assert max(roles.values(), key=lambda role: role.score).prototype == names[U]
    assert [role.prototype for role in roles.values() if role.kind == UNCERTAIN] == [names[U]]


def test_roles_of_one_class(found: tuple[Analysis, dict[int, int]]) -> None:
    analysis, names = found
    seen = analysis.trajectory
    listed = class_roles(analysis.pushes(), analysis.present, seen.shares, seen.labels, 0)
    roles = {role.prototype: role for role in listed}
    assert {k for k, role in roles.items() if role.kind == SHARED} >= {names[S], names[X]}
    assert roles[names[Y]].presence == 0


def test_a_sub_group_has_its_own_prototype() -> None:
    """Half of a class holds prototype 1, the other half prototype 2; all hold 0."""
    rng = np.random.default_rng(0)
    n = 80
    shares = np.zeros((n, 3))
    shares[:, 0] = 0.5
    shares[: n // 2, 1] = shares[n // 2 :, 2] = 0.5
    shares += rng.normal(0, 0.004, shares.shape) * (shares > 0)
    beta = np.full((2, 3, 2), 0.2)
    roles = {role.prototype: role for role in class_roles(beta, shares > 0, shares, np.zeros(n, dtype=int), 0)}
    assert roles[0].kind == SHARED
    assert {roles[1].kind, roles[2].kind} == {SPECIALISED}
    assert roles[1].subgroup != roles[2].subgroup


def test_competition_and_marked_transitions(found: tuple[Analysis, dict[int, int]]) -> None:
    analysis, names = found
    up, down = competition(analysis.beta[2], names[U])
    assert up == [0]
    assert set(down) <= {1, 2}
    moved = [one.movement for one in analysis.transitions]
    assert marked(analysis.transitions)[0] == int(np.argmax(moved))


def test_the_most_confused_pair(found: tuple[Analysis, dict[int, int]]) -> None:
    seen = found[0].trajectory
    assert seen.most_confused == (0, 1)
    assert (seen.confusion().sum(), np.trace(seen.confusion())) == (180, round(180 * seen.accuracy[-1]))
    assert confused(np.array([[9, 0, 2], [1, 9, 0], [3, 1, 9]])) == (0, 2)


def test_the_uncertain_one_goes_before_a_stronger_specialised_one() -> None:
    effects = np.zeros((4, 3, 2))
    effects[:, 0] = [[0.5, 0], [0.5, 0], [-0.2, 0], [0.5, 0]]  # strong, nearly always one way, and in one class only
    effects[:, 1] = [[0.08, 0], [-0.08, 0], [0.08, 0], [-0.08, 0]]
    present, labels = np.array([[True, True, False]] * 5 + [[False, True, False]] * 5), np.repeat([0, 1], 5)
    roles = pair_roles(effects, present, labels, (0, 1))
    assert (roles[0].prototype, roles[0].kind) == (0, SPECIALISED)
    assert most_uncertain(roles).prototype == 1
    assert most_uncertain(roles[:1]).prototype == 0
