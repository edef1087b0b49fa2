"""Studies: checkpoints x explainers x fills x seeds x images, planned, run anywhere, resumed, and analysed."""
