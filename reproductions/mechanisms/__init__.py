"""What papers say that a mechanism does, measured: claims that need no comparison of whole trainings.

Each claim is a function of a seed that returns what was measured of each arm, on answers of real small policies wherever the
claim is about those. Seeds are pairs: a claim is judged by the 95 % interval of the difference, like those of
``quatrain reproduce``.

    python -m reproductions.mechanisms                       every claim that has no result yet
    python -m reproductions.mechanisms optimal_baseline      these, anew
"""
