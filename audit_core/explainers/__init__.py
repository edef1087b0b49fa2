"""Explainers: each module registers its classes; a new one is imported here by one line, in the order of the menus."""

# ruff: noqa: I001  (registration order is menu order)
from audit_core.explainers import rollout  # noqa: F401
from audit_core.explainers import attention  # noqa: F401
from audit_core.explainers import relevance  # noqa: F401
from audit_core.explainers import cam  # noqa: F401
from audit_core.explainers import gradients  # noqa: F401
from audit_core.explainers import rise  # noqa: F401
from audit_core.explainers import inverted  # noqa: F401
from audit_core.explainers import occlusion  # noqa: F401
from audit_core.explainers import surrogate  # noqa: F401
from audit_core.explainers import controls  # noqa: F401
from audit_core.explainers import outside  # noqa: F401
from audit_core.explainers.base import EXPLAINERS, Cost, Explainer
from audit_core.explainers.outside import load_plugins

__all__ = ["EXPLAINERS", "Cost", "Explainer"]

load_plugins()
