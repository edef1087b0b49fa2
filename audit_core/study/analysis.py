"""What a page or report asks of a study's results; each question is one function that returns one frozen view."""

from __future__ import annotations

from audit_core.study.compression import CompressionView, compression
from audit_core.study.direction import better
from audit_core.study.filters import Filters
from audit_core.study.means import CellMean, CellsView, cells
from audit_core.study.pair_views import Comparison, ControlsView, Disagreement, PairsView, PairUnderFill, PairView
from audit_core.study.pairs import controls, pair, pairs
from audit_core.study.ranking import reversal
from audit_core.study.ranking_views import PairReversal, ReversalView, SchemeView
from audit_core.study.results import Results

__all__ = [
    "CellMean",
    "CellsView",
    "Comparison",
    "CompressionView",
    "ControlsView",
    "Disagreement",
    "Filters",
    "PairReversal",
    "PairUnderFill",
    "PairView",
    "PairsView",
    "Results",
    "ReversalView",
    "SchemeView",
    "better",
    "cells",
    "compression",
    "controls",
    "pair",
    "pairs",
    "reversal",
]
