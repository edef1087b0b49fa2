"""What every registered method says about itself; the Methods page and the tests read it from here."""

from __future__ import annotations

from typing import ClassVar


class Documented:
    """Facts of an explainer, a fill or a metric, besides the class docstring, which is its definition in words.

    title: in menus; family: the group it stands in; formula: the definition in symbols, plain text; source: author,
    year and link; library: whose code computes it ("own" where it is ours); witness: what the reference test compares
    it with; pitfalls: how it misleads, in one or two sentences.
    """

    title: ClassVar[str]
    family: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    library: ClassVar[str] = "own"
    witness: ClassVar[str] = ""
    pitfalls: ClassVar[str] = ""
