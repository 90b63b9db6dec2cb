"""The split into training and held-out prompts, and going on after a break."""

import json

import pytest

from quatrain.config import ConfigError
from quatrain.prompts import Problem, Source, Template
from quatrain.prompts.files import Rows
from quatrain.prompts.reasoning import Generated

SUMS = Generated("chain_sum", {"min_terms": 2, "max_terms": 2, "max_digits": 2})
FEW = Generated("chain_sum", {"min_terms": 2, "max_terms": 2, "max_digits": 1})  # 100 sums and 100 differences
PLAIN = Template("plain")


def questions(prompts):
    return [p.question for p in prompts]


def letters(count, copies=1):
    return Rows("letters", tuple(Problem(f"q{n}", f"a{n}") for n in range(count)) * copies)


class TestTaking:
    def test_a_prompt_is_its_problem_in_the_template(self):
        source = Source(SUMS, PLAIN, seed=0, held_out=0)
        prompt = source.take(1)[0]
        assert prompt.text == f"Question: {prompt.question}\nAnswer:"
        assert prompt.demonstration == f" {prompt.answer}\n"
        assert prompt.task == "reasoning_gym:chain_sum"
        assert prompt.info["reasoning_gym"]["entry"]["answer"] == prompt.answer

    def test_a_demonstration_is_imitated_in_place_of_the_answer(self):
        source = Source(Rows("r", (Problem("q", "2", "It is 2."),)), PLAIN, seed=0, held_out=0)
        assert source.take(1)[0].demonstration == " It is 2.\n"

    def test_nothing_to_imitate(self):
        assert Source(Rows("r", (Problem("q"),)), PLAIN, seed=0, held_out=0).take(1)[0].demonstration is None

    def test_ids_grow_and_are_unique_over_held_out_prompts_too(self):
        source = Source(SUMS, PLAIN, seed=0, held_out=20)
        ids = [p.id for p in source.held_out + source.take(50) + source.take(50)]
        assert ids == sorted(set(ids))

    def test_how_many_are_taken_at_once_does_not_matter(self):
        a, b = (Source(SUMS, PLAIN, seed=0, held_out=20) for _ in range(2))
        assert a.take(10) == b.take(3) + b.take(0) + b.take(7)

    def test_the_seed_decides(self):
        a, b, c = (Source(SUMS, PLAIN, seed=seed, held_out=5) for seed in (1, 1, 2))
        assert a.held_out == b.held_out
        assert questions(a.held_out) != questions(c.held_out)
        assert questions(a.take(9)) != questions(c.take(9))


class TestSplit:
    def test_nothing_held_out_or_shown_is_trained_on(self):
        examples = tuple(Problem(f"State the final answer to the following arithmetic problem: {n} + 1 =", "x") for n in range(4))
        source = Source(FEW, Template("plain", examples), seed=0, held_out=150)
        held_out = questions(source.held_out)
        assert len(set(held_out)) == len(held_out) == 150
        shown = {p.question for p in examples}
        assert not shown & set(held_out)
        assert not (shown | set(held_out)) & set(questions(source.take(500)))

    def test_of_a_file_goes_by_distinct_questions(self):
        source = Source(letters(10, copies=3), PLAIN, seed=0, held_out=4)
        assert len(set(questions(source.held_out))) == 4
        trained = questions(source.take(6 * 3))
        assert (
            sorted(trained) == sorted({f"q{n}" for n in range(10)} - set(questions(source.held_out))) * 3
            or len(set(trained)) == 6
        )
        assert {trained.count(q) for q in trained} == {3}

    def test_too_small_a_generated_task(self):
        with pytest.raises(
            ConfigError, match=r"has 200 distinct questions, and evaluate\.problems = 200 leaves none to train on"
        ):
            Source(FEW, PLAIN, seed=0, held_out=200)
        with pytest.raises(ConfigError, match=r"set evaluate\.problems to 100 or less, or change task\.options"):
            Source(FEW, PLAIN, seed=0, held_out=500)

    def test_too_small_a_file(self):
        with pytest.raises(ConfigError, match=r"letters has 10 distinct questions.*add rows"):
            Source(letters(10), PLAIN, seed=0, held_out=10)
        assert len(Source(letters(10), PLAIN, seed=0, held_out=9).take(3)) == 3


class TestResuming:
    @pytest.mark.parametrize("task", [SUMS, letters(12)], ids=["generated", "file"])
    def test_goes_on_with_the_same_prompts(self, task):
        source = Source(task, PLAIN, seed=3, held_out=5)
        source.take(17)
        state = json.loads(json.dumps(source.state_dict()))
        expected = source.take(20)
        resumed = Source(task, PLAIN, seed=3, held_out=5)
        resumed.load_state_dict(state)
        assert resumed.take(20) == expected
        assert resumed.state_dict() == source.state_dict()

    def test_learning_changes_nothing(self):
        a, b = (Source(SUMS, PLAIN, seed=0, held_out=0) for _ in range(2))
        a.learn([])
        assert a.take(3) == b.take(3)


class Sealed(Problem):
    """A problem of which only the question may be looked at."""

    def __getattribute__(self, name):
        if name in ("answer", "demonstration", "rated", "info", "worked", "verifiable"):
            raise AssertionError(f"{name} was looked at")
        return super().__getattribute__(name)


class TestWithoutLabels:
    def test_no_label_is_looked_at(self):
        sealed = Rows("letters", tuple(Sealed(f"q{n}", f"a{n}", info={"n": n}) for n in range(8)))
        source = Source(sealed, PLAIN, seed=0, held_out=0, labels=False)
        for prompt in source.take(20):
            assert (prompt.answer, prompt.demonstration, prompt.rated, prompt.info) == (None, None, (), {})
        with pytest.raises(AssertionError, match="was looked at"):
            source.labelled(source.take(1)[0])
        with pytest.raises(AssertionError, match="was looked at"):
            Source(sealed, PLAIN, seed=0, held_out=0).take(1)

    @pytest.mark.parametrize("task", [SUMS, letters(24)])
    def test_the_prompts_are_those_of_a_source_with_labels_and_lead_back_to_them(self, task):
        with_labels, without = (Source(task, PLAIN, seed=0, held_out=5, labels=labels) for labels in (True, False))
        assert with_labels.held_out == without.held_out
        seen, blind = with_labels.take(40), without.take(40)
        assert [(p.id, p.text) for p in blind] == [(p.id, p.text) for p in seen]
        assert [without.labelled(p) for p in blind] == seen
