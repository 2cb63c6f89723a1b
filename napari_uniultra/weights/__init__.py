"""Bundled checkpoints, as data."""
