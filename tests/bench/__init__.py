"""What the project must reach, measured: ``make bench`` prints one table. No test runs any of this.

1 engine: curves and RISE beside the bare model · 2 rivals: beside TorchCAM and Quantus · 3 latency in the running
dashboard · 4 resident memory of its server. Speeds are ratios of contenders that take turns within one run.
"""
