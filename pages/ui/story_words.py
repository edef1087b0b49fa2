"""The story's sentences, in plain words, each from the numbers of a record or of a study."""

from __future__ import annotations

from collections.abc import Sequence

from audit_core.record import AuditRecord
from audit_core.study.judgement import Judgement
from audit_core.study.ranking import PairReversal
from audit_core.types import Effect
from audit_core.verdict import verdict
from pages.ui.wording import BADGES

#: What a fill puts in the place of a removed pixel, inside a sentence.
STAND_INS = {
    "zero": "black",
    "zero-normalised": "the average colour",
    "image-mean": "the image’s average",
    "dataset-mean": "the average of all images",
    "blur": "a blurred copy",
    "reference": "a flawless example",
    "road": "a blend of its neighbours",
}


def stand_in(fill: str) -> str:
    """A fill inside a sentence; its own name where it has no plain one."""
    return STAND_INS.get(fill.partition(":")[0], fill.replace(":", ", ").replace("=", " "))


def convincing(record: AuditRecord) -> str:
    """Step 1."""
    return f"The network says “{record.classes[record.predicted]}”. Its heatmap shows why. Convincing?"


def tested(record: AuditRecord) -> str:
    """Step 2: what removing the important pixels first does, beside pixels at random."""
    how = {1: "sooner than", 0: "no sooner than", -1: "later than"}[side(record.advantage.get("deletion"))]
    return (
        f"Take away the pixels that the map calls important: the network loses its certainty {how} with random pixels."
    )


def refilled(first: AuditRecord, second: AuditRecord) -> str:
    """Step 3: what another fill does to the verdict on the very same map."""
    one, other = (verdict(record).word for record in (first, second))
    change = f"the verdict turns from “{one}” to “{other}”" if one != other else f"the verdict stays “{one}”"
    return f"Same network, same image, same map. Only the stand-in for a removed pixel changes: {change}."


def turned(pair: PairReversal | None, first: str, second: str) -> str:
    """Step 4: first, second: the pair's names in menu words; None where no two contenders change places."""
    if pair is None:
        return "In this study no two explanations change places when the stand-in changes."
    wins, loses = stand_in(pair.wins_under), stand_in(pair.loses_under)
    if pair.certain:
        return f"Whose map is better? With {wins} it is {first}, with {loses} it is {second}."
    return f"In this study no reversal is certain. The likeliest: {first} leads with {wins}, {second} with {loses}."


def concluded(judged: Sequence[Judgement], share: float) -> str:
    """Step 5: who beats the controls under enough fills, and what became of the other checks.

    share: of the fills under which every control must be beaten.
    """
    n, held = len(judged), sum(one.word == "supported" for one in judged)
    beating = [one for one in judged if any(c.name == "share of fills" and c.met for c in one.criteria)]
    fills = "every stand-in" if share == 1 else f"at least {100 * share:.0f}\u00a0% of the stand-ins"
    what = f"maps made without a network under {fills}"
    if not n:
        return "Nothing could be judged in this study."
    if held:
        return f"{held} of {n} explanations {'beats' if held == 1 else 'beat'} {what}, and every check is passed."
    if not beating:
        return f"None of {n} explanations beats {what}."
    checks = [c for one in beating for c in one.unknown if not c.fill]
    rest = "the other checks were not all measured" if checks else "none passes every other check"
    return f"{len(beating)} of {n} explanations {'beats' if len(beating) == 1 else 'beat'} {what}, but {rest}."


def badge(word: str) -> str:
    """A verdict as Markdown inside a line: colour, shape and word."""
    icon, colour = BADGES[word]
    return f":{colour}-badge[{icon} {word}]"


def side(effect: Effect | None) -> int:
    """1 where the whole interval lies above 0, -1 below, 0 where nobody can tell."""
    if effect is None:
        return 0
    return (effect.low > 0) - (effect.high < 0)
