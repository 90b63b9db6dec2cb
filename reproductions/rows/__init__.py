"""Does every row learn? Each is trained for a few dozen steps on a task that it can learn, with several seeds.

The task is to say the larger of two numbers, written as text. The start is ``tiny`` after a little imitation, right now and then;
its teacher imitated for longer. What a row learns from follows from what it reads: its own answers and their rewards, the task's
right answers, pairs of a right and a wrong one, or the teacher. All rows have the same numbers otherwise.

    python -m reproductions.rows                 every row that has no result yet
    python -m reproductions.rows dapo dpo        these, anew
"""
