"""The problems of reasoning-gym through the whole way: made, written as JSON, read, verified."""

import itertools
import json
import warnings

import pytest

from quatrain.config import TaskConfig
from quatrain.prompts import open_task
from quatrain.rewards import builtin

GOLD = [
    *("acre", "advanced_geometry", "arc_1d", "arc_agi", "basic_arithmetic", "bf", "binary_matrix", "caesar_cipher", "chain_sum"),
    *("circuit_logic", "codeio", "complex_arithmetic", "countdown", "course_schedule", "family_relationships", "figlet_font"),
    *("game_of_life", "gsm_symbolic", "isomorphic_strings", "jugs", "knights_knaves", "letter_counting", "list_functions"),
    *("mini_sudoku", "n_queens", "polynomial_multiplication", "rearc", "shortest_path", "simple_equations", "sokoban", "sudoku"),
    *("syllogism", "tower_of_hanoi", "tsumego", "word_ladder", "word_sorting"),
]


def made(data_set, count=2, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = open_task(TaskConfig(name=f"reasoning_gym:{data_set}", options=options))
    return list(itertools.islice(task.problems(11), count))


def score(completion, problem):
    return builtin.correct(completion, problem.answer, info=json.loads(json.dumps(problem.info)))


@pytest.mark.parametrize("data_set", GOLD)
def test_the_reference_answer_scores_1(data_set):
    assert [score(f" {p.answer}\n", p) for p in made(data_set)] == [1.0, 1.0]


@pytest.mark.parametrize("data_set", ["boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"])
def test_without_a_reference_answer_nonsense_is_not_right(data_set):
    assert all(score("nonsense", p) < 1 for p in made(data_set))


def test_a_proposed_coloring_is_verified():
    problem = made("graph_color", 1)[0]
    entry = problem.info["reasoning_gym"]["entry"]
    colors = dict(entry["metadata"]["possible_answer"]["__items__"])
    assert score(json.dumps({str(vertex): color for vertex, color in colors.items()}), problem) == 1.0
    assert score(json.dumps({str(vertex): 1 for vertex in colors}), problem) < 1.0


def test_options_reach_the_verifier():
    problem = made("chain_sum", 1, min_terms=2, max_terms=2)[0]
    assert problem.info["reasoning_gym"]["options"] == {"min_terms": 2, "max_terms": 2}
    assert score(str(int(problem.answer) + 1), problem) < 1


def test_the_final_answer_may_be_tagged():
    problem = made("chain_sum", 1)[0]
    assert score(f"I add them up: <answer>{problem.answer}</answer>", problem) == 1.0
