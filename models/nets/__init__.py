"""Architectures of our own that timm does not have."""
