"""Test-time reinforcement learning: the most frequent answer is the label."""

from quatrain.recipes.recipe import Recipe

RECIPE = Recipe(
    about="The policy learns a task from its questions alone: 64 answers to each vote, and the first 32 are trained on, rewarded "
    "for agreeing with the majority.",
    config={
        "method": {"name": "grpo", "settings": {"kl.coefficient": 0.001}},  # the released script's KL loss
        "rewards": [{"name": "majority"}],
        "labels": "measure",
        "steps": 240,  # 80 episodes of AIME 2024's 30 problems
        "prompts_per_step": 8,
        "group_size": 32,
        "votes": 64,
        "max_answer_tokens": 256,  # scaled down from 3072
        "update": {"lr": 5e-7, "schedule": "cosine", "warmup_steps": 7, "minibatches": 8},
        "evaluate": {"every": 20},
    },
    expects="accuracy above the start's majority vote. The paper, with answers of up to 3072 tokens, on the very problems that "
    "are trained on: from 12.9 to 40.2 % on AIME 2024 and from 46.7 to 83.4 % on MATH-500 with Qwen2.5-Math-7B.",
    paper="arXiv:2504.16084",
)
