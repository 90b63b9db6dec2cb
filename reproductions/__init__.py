"""Experiments: each is a command, and its results are committed beside it."""
