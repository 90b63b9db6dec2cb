"""Quatrain: reinforcement-learning post-training where every method is four interchangeable lines."""
