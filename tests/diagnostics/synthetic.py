"""A run folder as training would leave it, made of invented numbers."""

import math
import random
from pathlib import Path

from quatrain.diagnostics.evaluation import Evaluation
from quatrain.diagnostics.records import RunFolder

HOSTILE = "</script><img src=x onerror=alert(1)>{{ 7 * 7 }}<b>&amp;"
CONFIG = """\
method: {name: %s, settings: {}}
task: {name: 'reasoning_gym:chain_sum', options: {max_terms: 4}}
model: {name: smollm2, dtype: auto, lora: null}
steps: %d
seed: %d
update: {lr: 1.0e-05, epochs: 1}
"""


def make_run(path: Path, *, method: str = "grpo", seed: int = 0, steps: int = 100) -> Path:
    """A run that gets better, with a value of every metric, gaps, failures and a hostile answer."""
    folder = RunFolder(path)
    folder.create(CONFIG % (method, steps, seed))
    rng = random.Random(seed)
    difficulty = [rng.random() for _ in range(100)]
    speed = 2.5 / steps * (1 + 0.3 * seed)

    def skill(step: int) -> float:
        return 0.25 + 0.5 * (1 - math.exp(-speed * step))

    def evaluate(step: int) -> None:
        scores = [[float(d < skill(step) + rng.gauss(0, 0.05)) for _ in range(4)] for d in difficulty]
        answers = [["7" if right else str(rng.randint(0, 5)) for right in row] for row in scores]
        evaluation = Evaluation.of("chain_sum", scores, answers=answers, k=[4], seconds=9.5)
        folder.evaluations.append({"step": step, **evaluation.to_json()})

    evaluate(0)
    metrics, rollouts = [], []
    for step in range(1, steps + 1):
        reward, noise = skill(step), rng.gauss(0, 1)
        seconds = {"rollout": 2.1 + 0.1 * noise, "reward": 0.2, "update": 1.6 + rng.random() / 4}
        if step % 10 == 0:
            evaluate(step)
            seconds |= {"evaluate": 3.0, "checkpoint": 0.4}
        metrics.append(
            {
                "step": step,
                "version": step,
                "reward/mean": reward + 0.05 * noise,
                "reward/std": 0.4 - 0.2 * reward,
                "reward/correct": reward - 0.1 + 0.04 * noise,
                "reward/format": min(1.0, 0.4 + 2 * step / steps),
                "reward/failed": int(step % 31 == 0),
                "rollout/length": 38 + 10 * reward + 2 * noise,
                "rollout/truncated": max(0.0, 0.2 - step / steps / 4),
                "rollout/failed": 0,
                "rollout/tokens": 64 * 40,
                "entropy": 0.9 * math.exp(-step / steps) + 0.03 * rng.gauss(0, 1),
                "kl/rollout": 1e-4 * (1 + rng.random()),
                "kl/ref": 0.05 * step / steps + 0.002 * rng.random(),
                "mask/passed": 0.98 + 0.01 * rng.random(),
                "ratio/p01": 0.8 - 0.05 * rng.random(),
                "ratio/p50": 1.0,
                "ratio/p99": 1.2 + 0.1 * rng.random(),
                "ratio/max": 2.0 + 6 * rng.random() ** 4,
                "advantage/std": 0.9 - 0.1 * reward,
                "advantage/zero_groups": min(1.0, max(0.0, reward - 0.2 + 0.1 * noise)),
                "update/grad_norm": float("nan") if step == steps // 2 else 0.8 + 0.2 * abs(noise),
                "update/lr": 1e-5 * (1 - step / steps),
                "update/skipped": int(step == steps // 2),
                **{f"seconds/{name}": value for name, value in seconds.items()},
                "seconds/total": sum(seconds.values()),
                "tokens_per_second": 640 + 40 * rng.gauss(0, 1),
                "dual/price": 0.1 * step,
            }
        )
        if step in (1, steps // 2, steps):
            for member, advantage in enumerate((1.24, -0.41, 0.0, None)):
                rollouts.append(
                    {
                        "step": step,
                        "prompt": "Question: what is 2 + 2?\nAnswer: 4\n\nQuestion: what is 12 − 5 + 31?\nAnswer:",
                        "answer": "38",
                        "text": HOSTILE if member == 1 else " 12 − 5 is 7, and 7 + 31 is 38.\nThe answer is 38",
                        "reward": None if advantage is None else 1.0 - member / 2,
                        "rewards": {"correct": 1.0 - member / 2, "format": None if advantage is None else 1.0},
                        "advantage": advantage,
                        "finish": "length" if member == 2 else "stop",
                        "tokens": 23,
                        "error": "reward 'format' took longer than 10 s" if advantage is None else None,
                    }
                )
    folder.metrics.append(*metrics)
    folder.rollouts.append(*rollouts)
    return path
