"""The audit of (checkpoint, explainer, fill) triples. Imports no user interface; importing this needs no torch."""

__version__ = "0.1.0"
