"""Metrics: each module registers its classes; a new one is imported here by one line, in the order of the tables."""

# ruff: noqa: I001  (registration order is the order of the tables)
from audit_core.metrics import faithfulness  # noqa: F401
from audit_core.metrics import infidelity  # noqa: F401
from audit_core.metrics import controls  # noqa: F401
from audit_core.metrics import sanity  # noqa: F401
from audit_core.metrics import stability  # noqa: F401
from audit_core.metrics import complexity  # noqa: F401
from audit_core.metrics import localisation  # noqa: F401
from audit_core.metrics.base import METRICS, Evidence, Measure, Metric

__all__ = ["METRICS", "Evidence", "Measure", "Metric"]
