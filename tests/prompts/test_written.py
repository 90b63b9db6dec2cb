"""Written-out problems: what is written is true, the answer follows from it, and whatever else is right is right."""

import itertools
import json
import re

import pytest

from quatrain.config import ConfigError, TaskConfig
from quatrain.prompts import FAMILIES, Problem, open_task
from quatrain.rewards import builtin

LEVELS = (1, 2, 3, 7)


def first(name: str, level: int, count: int = 40, seed: int = 0, start: int = 0) -> list[Problem]:
    task = open_task(TaskConfig(name=f"written:{name}", options={FAMILIES[name].dial: level}))
    return list(itertools.islice(task.problems(seed, start), count))


def some(name: str) -> list[tuple[int, Problem]]:
    return [(level, problem) for level in LEVELS for problem in first(name, level)]


def score(completion: str, problem: Problem) -> float:
    return builtin.correct(completion, problem.answer, info=json.loads(json.dumps(problem.info)))


def written(problem: Problem) -> tuple[list[str], str]:
    """The steps and the answer of a solution."""
    steps, answer = str(problem.demonstration).split(": ")
    return steps.split(), answer


def refused(name: str, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        open_task(TaskConfig(name=name, options=options))
    return str(caught.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_solution_ends_in_the_answer_which_is_right(name: str):
    for _, p in some(name):
        assert written(p)[1] == p.answer
        assert "\n" not in str(p.demonstration)
        assert score(f" {p.demonstration}\n", p) == score(f"{p.answer}", p) == 1


@pytest.mark.parametrize("name", sorted({*FAMILIES} - {"cipher"}))
def test_mathematics_reads_the_same_answer(name: str):
    assert all(builtin.math(str(p.demonstration), p.answer) == 1 for p in first(name, 3, 8))


@pytest.mark.parametrize("name", FAMILIES)
def test_another_answer_is_wrong_and_so_is_none(name: str):
    for (_, p), (_, q) in itertools.pairwise(some(name)):
        assert score(str(q.demonstration), p) == (p.info == q.info)
        assert score(f"{p.answer} ?", p) == score("", p) == score(f"{p.answer}{p.answer}", p) == 0


def test_additions_carry():
    for digits, p in some("addition"):
        a, b = p.question.split("+")
        assert p.answer == str(int(a) + int(b))
        steps, _ = written(p)
        sums = [[int(n) for n in re.fullmatch(r"(\d)\+(\d)\+([01])=(\d\d)", step).groups()] for step in steps]  # type: ignore[union-attr]
        assert [(x, y) for x, y, _, _ in sums] == [(int(x), int(y)) for x, y in zip(a[::-1], b[::-1], strict=True)]
        assert [c for _, _, c, _ in sums] == [0, *(total // 10 for *_, total in sums[:-1])]
        assert all(x + y + c == total for x, y, c, total in sums)
        assert len(a) == len(b) == digits


def test_chains_go_from_right_to_left_modulo_ten():
    for length, p in some("chain"):
        steps, answer = written(p)
        assert len(steps) == length
        assert all(eval(left) % 10 == int(right) for left, right in (step.split("=") for step in steps))
        *operations, value = p.question.split()
        for operation, step in zip(reversed(operations), steps, strict=True):
            assert step.startswith(f"{operation}{value}=")
            value = step[-1]
        assert answer == value


def test_ciphers_move_letters_on():
    for letters, p in some("cipher"):
        word, shift = p.question.split()
        assert len(word) == letters
        assert p.answer == "".join("abcdefghijabcdefghi"["abcdefghij".index(letter) + int(shift)] for letter in word)
        assert written(p)[0] == [f"{x}+{shift}={y}" for x, y in reversed(list(zip(word, p.answer, strict=True)))]


def test_any_two_numbers_with_the_sum_are_right():
    for digits, p in some("sum_to"):
        total = int(p.question.removesuffix("=?"))
        assert len(str(total)) == digits
        assert all(eval(step.replace("=", "==")) for step in written(p)[0])
        for part in {0, total // 3, total}:
            assert score(f"anything: {part}+{total - part}", p) == 1
            assert score(f"{part + 1}+{total - part}", p) == 0
        assert not any(score(text, p) for text in (str(total), f"{total}+", f"{total + 1}+-1", f"{total}+0+0", f"{total}.0+0"))


def test_a_sum_of_two_numbers_has_many_right_answers():
    answers = [{p.answer for p in first("sum_to", 2, 2000) if p.question == question} for question in ("57=?", "38=?")]
    assert all(len(of_one) > 5 for of_one in answers)


def test_solutions_are_short():
    assert all(25 <= len(str(p.demonstration)) <= 40 for p in first("addition", 3))
    assert all(len(str(p.demonstration)) <= 45 for name in FAMILIES for p in first(name, FAMILIES[name].default))


class TestStream:
    @pytest.mark.parametrize("name", FAMILIES)
    def test_can_be_entered_anywhere(self, name: str):
        assert first(name, 3, 5, start=1_000_003) == first(name, 3, 8, start=1_000_000)[3:]

    def test_neighbouring_seeds_and_levels_share_nothing(self):
        streams = [{p.question for p in first("addition", 5, 50, seed)} for seed in (0, 1)]
        assert not streams[0] & streams[1]

    def test_the_dial_may_be_a_range(self):
        stream = open_task(TaskConfig(name="written:cipher", options={"letters": [2, 5]})).problems(0)
        lengths = [len(problem.answer) for problem in itertools.islice(stream, 200)]
        assert set(lengths) == {2, 3, 4, 5}
        assert min(lengths.count(n) for n in set(lengths)) > 25

    def test_the_dial_has_a_default(self):
        task = open_task(TaskConfig(name="written:addition"))
        assert (task.name, task.size) == ("written:addition", None)
        assert next(task.problems(0)) == first("addition", FAMILIES["addition"].default, 1)[0]
        assert next(open_task(TaskConfig(name="written:addition?digits=2")).problems(0)) == first("addition", 2, 1)[0]


class TestRefused:
    def test_a_stream_may_begin_again(self):
        task = open_task(TaskConfig(name="written:addition?digits=4&different=5"))
        told = [p.question for p in itertools.islice(task.problems(3, 2), 10)]
        assert told[:5] == told[5:] and len(set(told)) == 5
        endless = open_task(TaskConfig(name="written:addition?digits=4"))
        assert told[:3] == [p.question for p in itertools.islice(endless.problems(3, 2), 3)]
        assert "different = 0 is not allowed: give a whole number above 0" in refused("written:addition", different=0)

    def test_unknown_family(self):
        assert "no task written:adition: did you mean written:addition" in refused("written:adition")

    def test_a_bare_name_is_told_its_prefix(self):
        assert "write written:addition" in refused("addition")

    def test_unknown_option(self):
        assert "has no option 'digit': did you mean digits?" in refused("written:addition", digit=3)

    @pytest.mark.parametrize("value", [0, 21, 2.5, "three", True, None, [3], [3, 2], [0, 2], [2, 2.5]])
    def test_values_that_are_none(self, value: object):
        told = refused("written:addition", digits=value)
        assert f"digits = {value!r} is not allowed: give a whole number from 1 to 20, or a list" in told
