"""Judging groups: totals, what a failing reward costs, and processes that never outlive the run."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quatrain.config import ConfigError, RewardConfig
from quatrain.rewards import Judge
from quatrain.rewards.pool import _Worker
from quatrain.types import Group, Origin, Prompt
from tests.rewards.conftest import group, trajectory

MINE = """
import os, re, sys, time

def number(completion):
    return float(completion)

def moody(completion):
    if completion == "raise": raise ValueError("two\\nlines")
    if completion == "exit": sys.exit(3)
    if completion == "die": os._exit(7)
    if completion == "hang": time.sleep(60)
    if completion == "lock": re.match("(a+)+$", "a" * 60 + "b")
    if completion == "greedy": return float(len(bytearray(8 << 30)))
    if completion == "nan": return float("nan")
    if completion == "text": return "1.0"
    print("a reward may print")
    return 1

def heavy(): return float("torch" in sys.modules)
def length_of_all(tokens, truncated, max_answer_tokens): return tokens + 100 * truncated + 1000 * max_answer_tokens
def asks(completion): return 2.0 if input() else 0.0
def same(completions, answer, *, unit=1.0):
    if "raise" in completions: raise ValueError("no")
    if "hang" in completions: time.sleep(60)
    return [unit * completions.count(text) for text in completions]
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    path = tmp_path_factory.mktemp("rewards") / "mine.py"
    path.write_text(MINE)
    return lambda function, **settings: RewardConfig(name=f"{path}:{function}", **settings)


@pytest.fixture(scope="module")
def moody(mine):
    with Judge([RewardConfig(name="format"), mine("moody", timeout_seconds=0.5)], 64, workers=1) as judge:
        yield judge


def only(judged):
    return [t for g in judged for t in g.trajectories]


class TestJudging:
    def test_the_total_is_the_weighted_sum(self, mine):
        rewards = [RewardConfig(name="correct"), RewardConfig(name="format", weight=0.5), mine("number", weight=-0.1)]
        with Judge(rewards, 64, workers=1) as judge:
            right, wrong = only(judge.judge([group("2", "2", "3")]))
        name = mine("number").name
        weights = {"correct": 1.0, "format": 0.5, name: -0.1}
        assert right.info == {"finish": "end", "rewards": {"correct": 1.0, "format": 1.0, name: 2.0}, "weights": weights}
        assert right.reward == pytest.approx(1 + 0.5 - 0.2)
        assert wrong.reward == pytest.approx(0 + 0.5 - 0.3)

    def test_tells_a_reward_its_facts_and_keeps_two_of_a_name_apart(self, mine):
        lengths = [RewardConfig(name="length", options={"target_tokens": n, "per_token": 1}) for n in (2, 4)]
        with Judge([mine("length_of_all"), *lengths, mine("heavy"), mine("asks")], 64, workers=1) as judge:
            told = only(judge.judge([group(None, "x", tokens=5, finish="length")]))[0]
        values = told.info["rewards"]
        assert values[mine("length_of_all").name] == 5 + 100 + 64_000
        assert (values["length"], values["length#2"]) == (-3, -1)
        assert values[mine("heavy").name] == 0, "the process that computes rewards has imported torch"
        assert told.error == f"reward {mine('asks').name}: EOFError: EOF when reading a line"

    def test_only_the_policys_own_whole_answers_are_judged(self, moody):
        before = (
            trajectory("x", origin=Origin.DEMONSTRATION),
            trajectory("x", origin=Origin.REPLAY, reward=0.25),
            trajectory("", error="too long"),
            trajectory("x"),
        )
        after = moody.judge([Group(Prompt(0, "?"), before)])[0].trajectories
        assert after[:3] == before[:3]
        assert after[3].reward == 2.0

    def test_nothing_to_judge(self, moody):
        assert moody.judge([]) == []

    def test_no_rewards_are_0(self):
        with Judge([], 64, workers=1) as judge:
            assert only(judge.judge([group("2", "2")]))[0].reward == 0.0
            assert judge.correct([Prompt(0, "?", answer="2")], ["2"]) == [1.0]

    def test_unknown_rewards_are_told_at_once(self):
        with pytest.raises(ConfigError, match="did you mean correct"):
            Judge([RewardConfig(name="corect")], 64)


class TestOfAllAnswers:
    def test_is_told_those_that_are_judged_and_once(self, mine):
        before = (
            trajectory("a"),
            trajectory("a", origin=Origin.DEMONSTRATION),
            trajectory("", error="too long"),
            trajectory("b"),
            trajectory("a", origin=Origin.VOTER),
        )
        origins = frozenset({Origin.POLICY, Origin.VOTER})
        rewards = [RewardConfig(name="format"), mine("same", options={"unit": 0.5})]
        with Judge(rewards, 64, origins=origins, workers=1) as judge:
            after = only(judge.judge([Group(Prompt(0, "?"), before), group("2", "b", "b"), Group(Prompt(1, "?"), before[1:3])]))
        assert [t.reward for t in after] == [2.0, None, None, 1.5, 2.0, 2.0, 2.0, None, None]
        assert (after[1], after[2]) == before[1:3]
        assert after[0].info["rewards"] == {"format": 1.0, rewards[1].name: 1.0}

    @pytest.mark.parametrize(("text", "why"), [("raise", "ValueError: no"), ("hang", "it took longer than 0.5 s")])
    def test_a_failure_costs_the_answers_to_one_prompt(self, mine, text, why):
        config = mine("same", timeout_seconds=0.5)
        with Judge([RewardConfig(name="format"), config], 64, workers=1) as judge:
            first, second = judge.judge([group("2", "fine", text), group("2", "fine", "fine")])
        assert [t.error for t in first.trajectories] == [f"reward {config.name}: {why}"] * 2
        assert [t.info["rewards"] for t in first.trajectories] == [{"format": 1.0}] * 2
        assert [t.reward for t in first.trajectories + second.trajectories] == [None, None, 3.0, 3.0]

    def test_tells_nobody_whether_one_answer_is_right(self, mine):
        with Judge([RewardConfig(name="majority"), mine("same")], 64, workers=1) as judge:
            assert judge.correct([Prompt(0, "?", answer="2")] * 2, ["2", "3"]) == [1.0, 0.0]


class TestFailing:
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("raise", "ValueError: two lines"),
            ("exit", "SystemExit: 3"),
            ("die", "its process died (exit code 7)"),
            ("hang", "it took longer than 0.5 s"),
            ("lock", "it took longer than 0.5 s"),
            ("greedy", "MemoryError: "),
            ("nan", "ValueError: it returned nan, not a finite number"),
            ("text", "TypeError: it returned '1.0', not a number"),
        ],
    )
    def test_costs_one_trajectory_its_reward(self, moody, mine, text, why):
        before, failed, after = only(moody.judge([group("2", "fine", text, "fine")]))
        assert (before.reward, after.reward) == (2.0, 2.0)
        assert failed.reward is None
        assert failed.error == f"reward {mine('moody').name}: {why}"
        assert failed.info["rewards"] == {"format": 1.0}

    def test_of_all_at_once(self, moody):
        texts = ["die", "fine", "raise", "hang", "fine"]
        assert [t.reward for t in only(moody.judge([group("2", *texts)]))] == [None, 2.0, None, None, 2.0]

    def test_between_two_calls_is_no_calls_fault(self, moody):
        moody.judge([group("2", "fine")])
        for worker in moody._pool._workers:
            worker.kill()
            worker.process.wait()
        assert only(moody.judge([group("2", "fine")]))[0].reward == 2.0

    def test_to_start_is_an_error_and_not_a_hang(self, mine, tmp_path):
        path = tmp_path / "gone.py"
        path.write_text("def reward(): return 1")
        judge = Judge([RewardConfig(name=f"{path}:reward")], 64, workers=1)
        try:
            path.write_text("raise SystemExit(4)")
            for worker in judge._pool._workers:
                worker.kill()
                worker.process.wait()
            for _ in range(2):
                with pytest.raises(RuntimeError, match="could not start"):
                    judge.judge([group("2", "a", "b")])
        finally:
            judge.close()


class TestCorrect:
    PROMPT = Prompt(0, "1 + 1 =", answer="2")

    @pytest.mark.parametrize(
        ("names", "verifier"),
        [
            ((), "correct"),
            (("format", "length"), "correct"),
            (("format", "math", "correct"), "math"),
            (("overlong", "own"), "own"),
        ],
    )
    def test_scores_with_the_first_reward_that_is_not_about_form(self, mine, names, verifier):
        own = mine("number")
        options = {"length": {"target_tokens": 3}}
        configs = [own if name == "own" else RewardConfig(name=name, options=options.get(name, {})) for name in names]
        with Judge(configs, 64, workers=1) as judge:
            assert judge.verifier.name == (own.name if verifier == "own" else verifier)

    def test_scores_lie_in_0_to_1(self, mine):
        with Judge([mine("number")], 64, workers=1) as judge:
            assert judge.correct([self.PROMPT] * 3, ["-3", "0.25", "7"]) == [0.0, 0.25, 1.0]

    def test_a_failing_verifier_counts_as_wrong_and_is_counted(self, moody):
        before = moody.unscored
        assert moody.correct([self.PROMPT] * 4, ["fine", "raise", "hang", "fine"]) == [1.0, 0.0, 0.0, 1.0]
        assert moody.unscored - before == 2


def test_64_answers_take_no_time():
    groups = [group(str(n), *(str(m) for m in range(8))) for n in range(8)]
    with Judge([RewardConfig(name="correct"), RewardConfig(name="format")], 64) as judge:
        judge.judge(groups)
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            judge.judge(groups)
            seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.3


class TestProcesses:
    """A run that is killed leaves none behind, whatever they were doing."""

    SCRIPT = """
import os, sys, threading, time
from quatrain.config import RewardConfig
from quatrain.rewards import Judge
from quatrain.types import Prompt
judge = Judge([RewardConfig(name=sys.argv[1], timeout_seconds=1.0)], 64, workers=2)  # no main guard: users forget it
prompt = Prompt(0, "?")
judge.correct([prompt] * 20, ["fine"] * 20)
threading.Thread(target=judge.correct, args=([prompt], [sys.argv[2]]), daemon=True).start()
time.sleep(0.2)
print(*(worker.process.pid for worker in judge._pool._workers), flush=True)
time.sleep(60)
"""

    def test_end_quietly_when_their_run_leaves_something_unread(self):
        worker = _Worker([RewardConfig(name="format")], ".")
        assert worker.socket.recv(1, socket.MSG_PEEK), "that it is ready is there to be read"
        worker.lines.close()
        worker.socket.close()
        assert worker.process.wait(60) == 0

    @pytest.mark.parametrize("doing", ["fine", "lock"])
    def test_end_with_a_killed_parent(self, mine, tmp_path, doing):
        script = tmp_path / "script.py"
        script.write_text(self.SCRIPT)
        run = subprocess.Popen(
            [sys.executable, str(script), mine("moody").name, doing],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert run.stdout is not None
        pids = [int(pid) for pid in run.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(running, pids))
        run.send_signal(signal.SIGKILL)
        run.wait()
        deadline = time.monotonic() + 15
        while any(map(running, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(running, pids))

    def test_end_with_the_context(self, mine):
        with Judge([mine("moody")], 64, workers=1) as judge:
            workers = list(judge._pool._workers)
        assert all(worker.process.poll() is not None for worker in workers)


def running(pid):
    """Whether the process exists and is not a zombie that waits for its new parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
