"""Does every row learn? Each is trained for a few dozen steps on a task that it can learn, with several seeds.

The task is to say the larger of two numbers, written as text. The start is ``tiny`` after it imitated answers of which 6 in 10
were right, and the others the smaller number; its teacher imitated right ones. What a row learns from follows from what it reads:
its own answers and their rewards, the task's right answers, pairs of a right and a wrong one, or the teacher. All rows have the
same numbers otherwise.

    python -m reproductions.rows                 every row that has no result yet
    python -m reproductions.rows dapo dpo        these, anew
"""
