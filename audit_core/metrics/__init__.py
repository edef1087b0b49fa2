"""Metrics: each module registers its classes; a new one is imported here by one line, in the order of the tables."""

from audit_core.metrics.base import METRICS, Evidence, Measure, Metric

__all__ = ["METRICS", "Evidence", "Measure", "Metric"]
