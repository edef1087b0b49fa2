"""What one audit lets you say, and what it does not."""

from __future__ import annotations

from dataclasses import dataclass

from audit_core.record import AuditRecord


@dataclass(frozen=True)
class Verdict:
    """word: "supported", "qualified", "not supported" or "not computable"; sentence: why, for this fill alone."""

    word: str
    sentence: str


def verdict(record: AuditRecord) -> Verdict:
    """Judge the map against random order of the same pixels under the same fill.

    A curve counts as better when the 95 % interval of its advantage lies above 0; the scope is this image, this
    fill and these steps, never the explainer as such.
    """
    fill = record.spec.triple.fill.name
    if any("order is the tie rule" in sentence for sentence in record.health):
        return Verdict("not computable", "A flat map has no order of its own, so there is nothing to judge.")
    if not record.advantage:
        return Verdict("not computable", "Without at least two random orders there is no level to compare with.")
    better = [name for name, effect in record.advantage.items() if effect.low > 0]
    worse = [name for name, effect in record.advantage.items() if effect.high < 0]
    if len(better) == 2:
        return Verdict(
            "supported", f"Under the {fill} fill this map finds pixels that matter to the model better than chance."
        )
    if better:
        other = "insertion" if better[0] == "deletion" else "deletion"
        how = "worse than" if worse else "no better than"
        return Verdict("qualified", f"Under the {fill} fill {better[0]} beats random order, {other} is {how} it.")
    how = "worse than" if len(worse) == 2 else "no better than"
    return Verdict("not supported", f"Under the {fill} fill this map is {how} removing pixels at random.")
