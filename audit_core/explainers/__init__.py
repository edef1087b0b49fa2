"""Explainers: each module registers its classes; a new one is imported here by one line, in the order of the menus."""

# ruff: noqa: I001  (registration order is menu order)
from audit_core.explainers import rollout  # noqa: F401
from audit_core.explainers import cam  # noqa: F401
from audit_core.explainers import rise  # noqa: F401
from audit_core.explainers import controls  # noqa: F401
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer

__all__ = ["EXPLAINERS", "Cost", "Explainer"]
