"""How fast the library is: against what the machine can do, against peers, and as work grows: docs/speed.md.

python -m benchmarks.machine     the machine's matrix products and its memory
python -m benchmarks.stages      generation and update against the floor, and methods against each other
python -m benchmarks.peers       the same step in TRL's GRPOTrainer, by turns
python -m benchmarks.growth      time and memory against what makes a step large

Each writes a file in benchmarks/results; `--quick` shows that it works, on next to nothing, and writes elsewhere.
"""
