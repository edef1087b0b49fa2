"""I2X: how a model came to look where it looks (Li et al. 2026, arXiv 2603.10234), from its training checkpoints."""
