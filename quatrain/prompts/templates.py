"""How a problem becomes the text that the policy reads, and an answer the text that it should write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from quatrain.config import ConfigError, TaskConfig
from quatrain.prompts.problem import Problem, Task, stream_seed

Style = Literal["chat", "plain"]

PLAIN_EXAMPLES = 4
"""Worked examples of the plain style where nobody says how many: a base model learns the form from them."""
ENDS = ("\n", "\n\n", "\n\nQuestion:")
"""What may end a plain answer; the first that no answer of the task contains does."""
PROBED = 8
"""Problems that are looked at for the form of their answers."""


@dataclass(frozen=True)
class Template:
    """A style with its worked examples, which are the same for all prompts, so that their beginning is computed once."""

    style: Style
    examples: tuple[Problem, ...] = ()
    system: str = ""
    end: str = "\n"
    """What follows a complete answer: in plain text the first stop string, in a chat the end-of-turn token."""
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, repr=False, compare=False)
    """Whose chat template renders a chat."""

    @property
    def add_special_tokens(self) -> bool:
        """Whether the tokenizer adds its BOS to :meth:`render`'s text; a chat template has written it already."""
        return self.style == "plain"

    @property
    def stop(self) -> list[str]:
        """Strings that end an answer; the end of a chat's turn too, as it need not be a token that ends the sequence."""
        return [self.end] if self.end else []

    def render(self, problem: Problem) -> str:
        """Everything that the policy reads before it answers `problem`."""
        if self.style == "plain":
            worked = [f"Question: {p.question.strip()}\nAnswer: {(p.worked or '').strip()}" for p in self.examples]
            return "\n\n".join([*filter(None, [self.system.strip()]), *worked, f"Question: {problem.question.strip()}\nAnswer:"])
        assert self.tokenizer is not None
        turns = [{"role": "system", "content": self.system}] if self.system else []
        for p in self.examples:
            turns += [{"role": "user", "content": p.question}, {"role": "assistant", "content": p.worked or ""}]
        turns.append({"role": "user", "content": problem.question})
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def completion(self, answer: str) -> str:
        """What the policy writes after :meth:`render` if it gives `answer`."""
        return f" {answer.strip()}{self.end}" if self.style == "plain" else f"{answer}{self.end}"


def resolve_template(
    config: TaskConfig,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    *,
    style: Literal["auto", "chat", "plain"] = "auto",
    examples: int | None = None,
    seed: int = 0,
) -> Template:
    """The template that `config` asks for; what it leaves open is `style` and `examples`, the model's advice.

    Where the advice is open too: chat for a tokenizer with a chat template, else plain text; four worked examples in plain text,
    none in a chat. The advised number holds for the advised style only. Worked examples are drawn with the run's `seed`.

    Raises:
        ConfigError: no chat template, one that refuses the system message, or too few problems with an answer for the examples.
    """
    has_chat = bool(tokenizer.chat_template)
    natural: Style = "chat" if has_chat else "plain"
    advised = natural if style == "auto" else style
    chosen = advised if config.template == "auto" else config.template
    if chosen == "chat" and not has_chat:
        raise ConfigError("task.template = 'chat' and this model's tokenizer has no chat template: set task.template=plain")

    usual = PLAIN_EXAMPLES if chosen == "plain" else 0
    advised_examples = usual if examples is None or chosen != advised else examples
    wanted = advised_examples if config.examples is None else config.examples
    probed = max(wanted, PROBED)
    seen = islice(_distinct(task, stream_seed(seed, "examples")), 10 * probed)
    answered = list(islice((p for p in seen if p.worked is not None), probed))
    if len(answered) < wanted and (config.examples is not None or answered):
        raise ConfigError(
            f"task.examples = {wanted} and {task.name} showed only {len(answered)} distinct problems with a reference answer: "
            f"set task.examples={len(answered)} or less"
        )
    shown = tuple(answered[:wanted])
    if chosen == "chat":
        return _checked(Template("chat", shown, config.system, _end_of_turn(tokenizer), tokenizer))
    texts = [text.strip() for p in answered for text in (p.worked or "", *(text for text, _ in p.rated))]
    end = next((end for end in ENDS if not any(end in text for text in texts)), ENDS[-1])
    return Template("plain", shown, config.system, end)


def _distinct(task: Task, seed: int) -> Iterator[Problem]:
    """The problems of a stream whose question did not come before, until there seem to be no more."""
    patience, seen, stale = task.size or 1000, set[str](), 0
    for problem in task.problems(seed):
        if problem.question not in seen:
            seen.add(problem.question)
            stale = 0
            yield problem
        elif (stale := stale + 1) >= patience:
            return


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template writes after an answer; the end-of-sequence token where it writes nothing."""
    answer = "the-answer"
    turns = [{"role": "user", "content": "the-question"}, {"role": "assistant", "content": answer}]
    after = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition(answer)[2]
    return after.strip() or str(tokenizer.eos_token or "")


def _checked(template: Template) -> Template:
    try:
        template.render(Problem("the-question"))
    except TemplateError as error:
        raise ConfigError(
            f"the model's chat template refuses this conversation ({error}): leave task.system empty, or set task.template=plain"
        ) from None
    return template
