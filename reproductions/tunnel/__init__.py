"""How good the model ``tunnel`` is before it learns more, and how fast a run with it is: the tables of docs/wind-tunnel.md.

python -m reproductions.tunnel
"""
