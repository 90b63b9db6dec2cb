"""Prompts for a run: an endless stream to train on, and held-out ones that never occur in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from quatrain.config import ConfigError
from quatrain.prompts.problem import Problem, Task, Unlabelled, stream_seed
from quatrain.prompts.templates import Template
from quatrain.types import Group, Prompt

PATIENCE = 1000
"""So many draws in a row without a usable question mean that a generated task has no more; a file is gone through twice."""


class Source:
    """The problems of `task` in `template`, split once and for all by `seed`.

    ``held_out`` has that many distinct questions; no question of theirs, nor of a worked example, is ever trained on. Without
    `labels` the prompts to train on carry nothing but the question.

    Raises:
        ConfigError: the task has too few distinct questions for that.
    """

    def __init__(self, task: Task, template: Template, *, seed: int, held_out: int, labels: bool = True) -> None:
        self.task = task
        self._trained = task if labels else Unlabelled(task)
        self.template = template
        self._seed = stream_seed(seed, "training")
        self._patience = 2 * task.size if task.size else PATIENCE
        self._position = 0
        """How far the training stream has been read: all that a run must remember to go on with the same prompts."""
        self._excluded = {p.question for p in template.examples}
        kept = self._draw_held_out(stream_seed(seed, "held-out"), held_out)
        self._excluded.update(p.question for p in kept)
        self.held_out = [self._prompt(number - held_out, problem) for number, problem in enumerate(kept)]
        """Prompts to evaluate on; their ids are negative, those of training are not."""
        self._stream = self._training(0)
        next(self._training(0))  # a task that leaves nothing to train on is told now, not at the first step

    def take(self, count: int) -> list[Prompt]:
        """The next `count` prompts to train on. Ids grow, and are unique over the run."""
        prompts = [next(self._stream) for _ in range(count)]
        self._position = prompts[-1].id + 1 if prompts else self._position
        return prompts

    def again(self, number: int) -> Prompt:
        """The prompt to train on of this id."""
        return self._prompt(number, next(iter(self._trained.problems(self._seed, number))))

    def labelled(self, prompt: Prompt) -> Prompt:
        """A prompt to train on with all that the task knows of it, to measure by."""
        return self._prompt(prompt.id, next(iter(self.task.problems(self._seed, prompt.id))))

    def learn(self, groups: Sequence[Group]) -> None:
        """What was learned about each prompt; this source draws without regard to it."""

    def state_dict(self) -> dict[str, Any]:
        """JSON values from which :meth:`load_state_dict` goes on with exactly the same prompts."""
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._position = int(state["position"])
        self._stream = self._training(self._position)

    def _draw_held_out(self, seed: int, count: int) -> list[Problem]:
        kept: dict[str, Problem] = {}
        stale, drawn = 0, self.task.problems(seed)
        while len(kept) < count and stale < self._patience:
            problem = next(drawn)
            new = problem.question not in kept and problem.question not in self._excluded
            stale = 0 if new else stale + 1
            if new:
                kept[problem.question] = problem
        if len(kept) < count:
            raise self._too_few(len(kept), count)
        return list(kept.values())

    def _training(self, start: int) -> Iterator[Prompt]:
        stale = 0
        for position, problem in enumerate(self._trained.problems(self._seed, start), start):
            if problem.question not in self._excluded:
                stale = 0
                yield self._prompt(position, problem)
            elif (stale := stale + 1) >= self._patience:
                raise self._too_few(len(self._excluded) - len(self.template.examples), len(self.held_out))

    def _prompt(self, number: int, problem: Problem) -> Prompt:
        worked = problem.worked
        return Prompt(
            id=number,
            question=problem.question,
            text=self.template.render(problem),
            answer=problem.answer,
            demonstration=None if worked is None else self.template.completion(worked),
            rated=tuple((self.template.completion(text), reward) for text, reward in problem.rated),
            task=self.task.name,
            info=problem.info,
        )

    def _too_few(self, found: int, wanted: int) -> ConfigError:
        more = "add rows" if self.task.size else "change task.options so that it has more"
        examples = len(self.template.examples)
        beside = f" beside the {examples} worked examples" if examples else ""
        return ConfigError(
            f"{self.task.name} has {found} distinct questions{beside}, and evaluate.problems = {wanted} leaves none to train on: "
            f"set evaluate.problems to {found // 2} or less, or {more}"
        )
