"""How problems and answers are written."""

import itertools

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from quatrain.config import ConfigError, TaskConfig
from quatrain.prompts import Problem, Template, resolve_template
from quatrain.prompts.files import Rows
from quatrain.prompts.reasoning import Generated

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML


def tokenizer(chat_template=None):
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<eos>": 0}, unk_token="<eos>")), eos_token="<eos>"
    )
    made.chat_template = chat_template
    return made


def rows(*problems):
    return Rows("rows", tuple(problems))


SUMS = rows(*(Problem(f"{n} + {n} =", str(2 * n)) for n in range(20)))


def resolve(task=SUMS, chat_template=None, *, style="auto", advised=None, seed=0, **settings):
    config = TaskConfig(name="t", **settings)
    return resolve_template(config, task, tokenizer(chat_template), style=style, examples=advised, seed=seed)


class TestPlain:
    def test_text(self):
        template = Template("plain", (Problem("1 + 1 =", "2"), Problem("2 + 2 =\n", " 4 ")), system="Add.")
        assert template.render(Problem("3 + 3 =", "6")) == (
            "Add.\n\nQuestion: 1 + 1 =\nAnswer: 2\n\nQuestion: 2 + 2 =\nAnswer: 4\n\nQuestion: 3 + 3 =\nAnswer:"
        )
        assert template.completion("6") == " 6\n"
        assert template.stop == ["\n"]
        assert template.add_special_tokens

    def test_a_question_may_have_lines(self):
        assert Template("plain").render(Problem("A grid:\n1 2\n3 4")) == "Question: A grid:\n1 2\n3 4\nAnswer:"

    def test_an_example_shows_its_demonstration(self):
        template = Template("plain", (Problem("1 + 1 =", "2", "One and one are 2."),))
        assert "Answer: One and one are 2.\n" in template.render(Problem("?"))

    @pytest.mark.parametrize(
        ("answer", "end"),
        [("7", "\n"), ("1 2\n3 4", "\n\n"), ("First.\n\nSecond.", "\n\nQuestion:")],
        ids=["line", "lines", "paragraphs"],
    )
    def test_the_end_is_nothing_that_an_answer_contains(self, answer, end):
        template = resolve(rows(*(Problem(f"{n}?", answer) for n in range(9))))
        assert template.stop == [end]
        assert answer + end in template.completion(answer)
        assert answer + end[:2] in template.render(Problem("?"))  # the examples show that same end


class TestChat:
    def test_text(self):
        template = resolve(chat_template=CHATML, examples=1, system="Add.")
        shown = template.examples[0]
        assert template.render(Problem("3 + 3 =")) == (
            "<|im_start|>system\nAdd.<|im_end|>\n"
            f"<|im_start|>user\n{shown.question}<|im_end|>\n<|im_start|>assistant\n{shown.answer}<|im_end|>\n"
            "<|im_start|>user\n3 + 3 =<|im_end|>\n<|im_start|>assistant\n"
        )

    def test_an_answer_ends_its_turn(self):
        template = resolve(chat_template=CHATML)
        assert template.completion("6") == "6<|im_end|>"
        assert template.stop == [template.end]
        assert not template.add_special_tokens

    def test_a_template_without_end_of_turn_ends_with_the_sequence(self):
        template = resolve(chat_template="{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}")
        assert template.completion("6") == "6<eos>"

    def test_needs_a_chat_template(self):
        with pytest.raises(ConfigError, match=r"no chat template: set task\.template=plain"):
            resolve(template="chat")

    def test_a_refused_system_message_is_told(self):
        with pytest.raises(ConfigError, match=r"System role not supported.*leave task\.system empty"):
            resolve(chat_template=NO_SYSTEM, system="Add.")


class TestResolving:
    @pytest.mark.parametrize(
        ("chat_template", "advice", "asked", "style", "examples"),
        [
            (None, ("auto", None), {}, "plain", 4),
            (CHATML, ("auto", None), {}, "chat", 0),
            (CHATML, ("plain", 3), {}, "plain", 3),
            (CHATML, ("plain", 3), {"template": "chat"}, "chat", 0),
            (CHATML, ("plain", 3), {"examples": 1}, "plain", 1),
            (CHATML, ("auto", None), {"template": "plain"}, "plain", 4),
            (None, ("plain", 0), {}, "plain", 0),
        ],
    )
    def test_what_is_asked_then_what_is_advised_then_what_is_natural(self, chat_template, advice, asked, style, examples):
        template = resolve(chat_template=chat_template, style=advice[0], advised=advice[1], **asked)
        assert (template.style, len(template.examples)) == (style, examples)

    def test_examples_are_distinct_and_fixed_by_the_seed(self):
        assert resolve(seed=1) == resolve(seed=1)
        assert resolve(seed=1) != resolve(seed=2)
        twice = rows(*(Problem(str(n % 4), "x") for n in range(40)))
        assert len({p.question for p in resolve(twice, examples=4).examples}) == 4

    def test_examples_have_an_answer(self):
        half = rows(*(Problem(str(n), None if n % 2 else "x") for n in range(40)))
        assert all(p.answer == "x" for p in resolve(half, examples=8).examples)

    def test_too_few_for_the_examples(self):
        with pytest.raises(ConfigError, match=r"task\.examples = 6 .* only 3 distinct"):
            resolve(rows(*(Problem(str(n % 3), "x") for n in range(30))), examples=6)

    def test_a_task_without_answers_shows_none_unless_asked_to(self):
        silent = Generated("rush_hour", {})
        assert next(itertools.islice(silent.problems(0), 1)).answer is None
        assert resolve(silent).examples == ()
        with pytest.raises(ConfigError, match="only 0 distinct"):
            resolve(silent, examples=2)
