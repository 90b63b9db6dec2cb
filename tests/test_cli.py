"""The command line: every wrong use is one line with the way out, before a model is loaded; every command says what it found."""

import json
import re
from pathlib import Path

import pytest
import yaml

from quatrain import cli
from quatrain.config import RunConfig
from tests.command_line import JUDGING, PARITY, jsonl, quatrain, records, train

SUMS = "--task sums.jsonl --model tiny "

WRONG = [
    # a method, a task, a model, a reward that there is not: the nearest names
    ("train --method grop " + SUMS, "no method 'grop'", "grpo"),
    ("train --method group-relativ " + SUMS, "no method 'group-relativ'", "group_relative"),
    ("train --task sumz.jsonl --model tiny", "no file sumz.jsonl", "did you mean sums.jsonl"),
    ("train --task sums.csv --model tiny", "neither JSONL nor Parquet", ".parquet"),
    ("train --task chain_sum --model tiny", "no task 'chain_sum'", "reasoning_gym:chain_sum"),
    ("train --task reasoning_gym:chainsum --model tiny", "no data set 'chainsum'", "chain_sum"),
    ("train --task reasoning_gym:chain_sum?max_term=2 --model tiny", "no option 'max_term'", "max_terms"),
    (
        "train --task reasoning_gym:chain_sum?min_terms=5&max_terms=2 --model tiny",
        "cannot be made",
        "max_terms must be >= min_terms",
    ),
    ("train --task sums.jsonl --model tniy", "cannot find the model 'tniy'", "did you mean tiny"),
    ("train --task sums.jsonl --model ./nowhere", "cannot find the model './nowhere'", "smollm2, tiny"),
    ("train --task sums.jsonl --model tiny --set task.answer_column=gold", "no column 'gold'", "'answer'"),
    ("train --task sums.jsonl --model tiny --set task.prompt_column=question", "no column 'question'", "task.prompt_column"),
    ("train --reward corect " + SUMS, "no reward 'corect'", "correct"),
    ("train --reward missing.py:f " + SUMS, "no file missing.py", "mine.py"),
    ("train --reward mine.py:shrot " + SUMS, "no function 'shrot'", "short"),
    ("train --reward mine.py:short=much " + SUMS, "the weight 'much' is not a number", "mine.py:short=0.2"),
    ('train --set rewards=[{"name":"mine.py:short","options":{"limti":3}}] ' + SUMS, "no option 'limti'", "limit"),
    ("train --reward broken.py:f " + SUMS, "broken.py cannot be imported", "ZeroDivisionError"),
    ("train nosuch", "no recipe 'nosuch'", "smollm2-chain-sum"),
    ("train nosuch.yaml", "no file nosuch.yaml", "recipe"),
    ("train list.yaml", "list.yaml holds a list", "steps: 100"),
    ("train torn.yaml", "torn.yaml is not valid YAML", "line 1"),
    ("train", "say what to train", "smollm2-chain-sum"),
    ("train --model tiny", "'task' is missing", "--task"),
    # settings
    ("train --set learning_rate=1 " + SUMS, "no setting 'learning_rate'", "known: "),
    ("train --set stesp=1 " + SUMS, "no setting 'stesp'", "did you mean steps"),
    ("train --set lr=1e-5 " + SUMS, "no setting 'lr'", "did you mean update.lr or process.lr?"),
    ("train --set update.lrr=1e-5 " + SUMS, "no setting 'update.lrr'", "did you mean update.lr?"),
    ("train --set model.lora.rnak=4 " + SUMS, "no setting 'model.lora.rnak'", "did you mean model.lora.rank?"),
    ('train --set rewards=[{"nam":"correct"}] ' + SUMS, "'rewards.0.name' is missing", "recipe"),
    ("train --set method.mask.hihg=0.3 --method grpo " + SUMS, "no setting 'method.mask.hihg'", "mask.high"),
    ("train --set update.lr=fast " + SUMS, "update.lr = 'fast'", "number"),
    ("train --set steps=1.5 " + SUMS, "steps = 1.5", "integer"),
    ("train --set group_size=many " + SUMS, "group_size = 'many'", "integer"),
    ("train --set sampling.stop=3 " + SUMS, "sampling.stop = 3", "list"),
    ("train --set model.lora.targets=5 " + SUMS, "model.lora.targets = 5", "string"),
    ("train --set method.mask.high=wide " + SUMS, "method.mask.high = 'wide'", "number"),
    ("train --method dapo --set method.mask.high=-1 " + SUMS, "method.mask.high = -1", "greater than or equal to 0"),
    ("train --method ppo --set method.advantage.lam=1.5 " + SUMS, "method.advantage.lam = 1.5", "less than or equal to 1"),
    ("train --set trackers=[tensorbord] " + SUMS, "'tensorbord'", "'tensorboard'"),
    ("train --set model.dtype=float17 " + SUMS, "'float17'", "'float32'"),
    ("train --set model.device=warp " + SUMS, "'warp'", "cpu"),
    ("train --set steps=0 " + SUMS, "steps = 0", "greater than 0"),
    ("train --set update.lr=-1e-5 " + SUMS, "update.lr = -1e-05", "greater than 0"),
    ("train --set sampling.temperature=-1 " + SUMS, "sampling.temperature = -1", "greater than or equal to 0"),
    ("train --set update.lr=nan " + SUMS, "update.lr = nan", "finite"),
    ("train --seed -1 " + SUMS, "seed = -1", "greater than or equal to 0"),
    ("train --seed two " + SUMS, "seed = 'two'", "integer"),
    ("train --set update.lr " + SUMS, "'update.lr' is not KEY=VALUE", "--set update.lr=1e-5"),
    ("train --set =3 " + SUMS, "'=3' is not KEY=VALUE", "--set update.lr=1e-5"),
    ("train --set update.lr=[1 " + SUMS, "'[1' is not valid YAML", "update.lr"),
    # what does not go together
    ("train --method grpo --set group_size=1 " + SUMS, "two answers or more to each prompt", "group_size=2"),
    ("train --method grpo --set reference.model=none " + SUMS, "needs a reference policy", "method.kl.coefficient=0"),
    ("train --set update.minibatches=9 --set prompts_per_step=8 " + SUMS, "update.minibatches is 9", "8 prompts"),
    ("train --set update.snr_parts=1 --set prompts_per_step=8 " + SUMS, "update.snr_parts is 1", "at most 8"),
    (
        "train --set update.snr_parts=8 --set update.minibatches=2 --set prompts_per_step=8 " + SUMS,
        "a minibatch has 4",
        "set it to 0",
    ),
    ("train --set evaluate.k=[1,4] --set evaluate.samples=2 " + SUMS, "evaluate.k has 4", "raise evaluate.samples"),
    ("train --reward majority --set votes=4 " + SUMS, "votes is 4 and group_size is 8", "raise votes"),
    ("train --set votes=16 " + SUMS, "nothing is learned from how answers compare", "--reward majority"),
    ("train --method sft --reward majority --set votes=16 " + SUMS, "nothing is learned from how", "leave it out"),
    ("train --set labels=measure " + SUMS, "the reward correct compares with them", "--reward majority"),
    ("train --method sft --set labels=measure " + SUMS, "reads demonstration ones", "set labels=learn"),
    ("train --method grpo --set sampling.temperature=0 " + SUMS, "sampling.temperature is 0", "above 0"),
    (
        "train --method grpo --task sums.jsonl --model tiny --set evaluate.problems=24",
        "24 distinct questions",
        "evaluate.problems to 12",
    ),
    (
        "train --method sft --task questions.jsonl --model tiny --set task.answer_column=",
        "needs worked answers",
        "task.demonstration_column",
    ),
    (
        "train --method spae --task questions.jsonl --model tiny --reward mine.py:short --set task.answer_column=",
        "needs the right answer to each prompt",
        "task.answer_column",
    ),
    ("train --method spae --reward majority --set labels=measure " + SUMS, "needs the right answer", "labels=learn"),
    # folders
    ("train --resume old --seed 1", "the run's own settings", "leave out --seed"),
    ("train mine.yaml --resume old --set steps=3", "the run's own settings", "leave out --set, mine.yaml"),
    ("train --resume .", ". is not a run folder", "config.yaml"),
    ("train --resume nowhere", "nowhere is not a run folder", "config.yaml"),
    ("train --out old --set evaluate.problems=2 " + SUMS, "old holds a run already", "--resume"),
    ("train --out full --set evaluate.problems=2 " + SUMS, "full is not empty", "another --out"),
    ("train --out mine.py --set evaluate.problems=2 " + SUMS, "mine.py is a file", "another --out"),
    ("train --out mine.py/run --set evaluate.problems=2 " + SUMS, "mine.py/run cannot be made", "another --out"),
    ("train --out /proc/run --set evaluate.problems=2 " + SUMS, "/proc/run cannot be made", "another --out"),
    # arguments
    ("train --modle tiny", "no argument --modle", "did you mean --model?"),
    ("train --steps 4", "no argument --steps", "write --set steps=…"),
    ("train one two", "no argument two", "quatrain --help"),
    ("train --method", "--method", "expected one argument"),
    ("trian", "'trian'", "did you mean train?"),
    ("", "COMMAND", "quatrain --help"),
    # several runs
    ("compare rloo " + SUMS, "a comparison needs two arms", "or more"),
    ("compare rloo grop " + SUMS, "arm grop: there is no method 'grop'", "grpo"),
    ("compare rloo rloo " + SUMS, "the arm rloo is there twice", "rloo,update.lr=1e-5"),
    (
        "compare rloo opo,update.lrr=1 " + SUMS,
        "arm opo,update.lrr=1: there is no setting 'update.lrr'",
        "did you mean update.lr?",
    ),
    ("compare rloo opo,steps=7 " + SUMS, "have not the same steps (rloo 100, opo,steps=7 7)", "--budget steps=100"),
    ("compare rloo opo --budget tokens=9 " + SUMS, "--budget tokens=9 is not steps=N", "equal steps"),
    ("compare rloo opo --seeds 1 " + SUMS, "one seed says nothing of the next", "2 or more"),
    ("compare rloo opo --seeds few " + SUMS, "--seeds", "invalid int value"),
    ("compare rloo opo --metric reward/mean:first " + SUMS, "'reward/mean:first' is not NAME or NAME:KIND", "last"),
    ("compare rloo opo --set evaluate.problems=0 " + SUMS, "has no held-out accuracy", "--metric"),
    ("compare rloo opo,max_answer_tokens=9 " + SUMS, "measured differently, max_answer_tokens is 64 and 9", "one for all arms"),
    ("compare rloo opo --teacher tiny " + SUMS, "no arm learns from a teacher", "leave it out"),
    ("reproduce bsaeline", "there is no folder reproductions", "--claims"),
    ("reproduce any --claims .", "no claim 'any' in .", "there is none"),
    # other commands
    ("evaluate tiny", "what to evaluate 'tiny' on", "--task"),
    ("evaluate tinny --task sums.jsonl", "cannot find the model 'tinny'", "tiny"),
    ("evaluate tiny --task sums.jsonl --k 4", "evaluate.k has 4", "samples"),
    ("evaluate tiny --task sums.jsonl --problems none", "evaluate.problems = 'none'", "integer"),
    ("evaluate tiny --task sums.jsonl --json nowhere/x.json", "no folder nowhere", "--json"),
    ("evaluate old --json full", "full is a folder", "name a file"),
    ("replay nowhere --step 1", "nowhere is not a run folder", "config.yaml"),
    ("replay old --step 7", "no recorded step 7", "none yet"),
    ("replay old", "--step", "required"),
    ("replay old --step two", "--step", "invalid int value"),
    ("report nowhere", "nowhere is not a run folder", "quatrain train"),
    ("report old --out nowhere/x.html", "no folder nowhere", "--out"),
    ("methods show gpro", "no method 'gpro'", "grpo"),
    ("methods show", "takes 1 ids and got 0", "quatrain methods show ID"),
    ("methods diff grpo", "takes 2 ids and got 1", "quatrain methods diff ID ID"),
    ("methods shwo grpo", "'shwo'", "did you mean show?"),
    ("tasks chain_sums", "no data set 'chain_sums'", "chain_sum"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wrong command lines speak of."""
    here = tmp_path_factory.mktemp("place")
    jsonl(here / "sums.jsonl", [{"prompt": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(24)])
    jsonl(here / "questions.jsonl", [{"prompt": f"{n}?"} for n in range(24)])
    (here / "mine.py").write_text("def short(completion, *, limit=3):\n    return -float(len(completion) > limit)\n")
    (here / "broken.py").write_text("1 / 0\n")
    (here / "list.yaml").write_text("- 1\n")
    (here / "torn.yaml").write_text("steps: [1\n")
    (here / "old").mkdir()
    config = RunConfig.model_validate({"task": "sums.jsonl", "model": "tiny", "evaluate": {"problems": 2}})
    (here / "old" / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (here / "full").mkdir()
    (here / "full" / "something").write_text("")
    return here


@pytest.mark.parametrize(("line", "fault", "way_out"), WRONG, ids=[line for line, *_ in WRONG])
def test_wrong_use_is_one_line_with_the_way_out(
    place: Path, monkeypatch: pytest.MonkeyPatch, line: str, fault: str, way_out: str
):
    def load_model(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.chdir(place)
    monkeypatch.setattr("quatrain.assembly.load_model", load_model)
    before = sorted(place.rglob("*"))
    done = quatrain(*line.split())
    assert done.code == 2, done.err
    assert re.fullmatch(r"quatrain: \S.*\n", done.err), done.err
    assert fault in done.err
    assert way_out in done.err
    assert sorted(place.rglob("*")) == before, "and nothing is left behind"


def test_the_table_of_wrong_uses_can_fail(place: Path, monkeypatch: pytest.MonkeyPatch):
    """The right line beside it does load a model."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("quatrain.assembly.load_model", lambda *_: 1 / 0)
    done = quatrain("train", *SUMS.split(), "--set", "evaluate.problems=2", "--out", "right")
    assert done.code == 1
    assert "ZeroDivisionError" in done.err
    assert done.err.splitlines()[-1] == "quatrain: failed, see above: go on with `quatrain train --resume RUN`"


@pytest.mark.parametrize("command", ["", *cli.BODIES])
def test_every_command_explains_itself(command: str):
    done = quatrain(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert f"usage: quatrain {command}".strip() in done.out
    if command:
        assert f"  quatrain {command}" in done.out.partition("examples:")[2]
    else:
        assert all(re.search(rf"^    {name}\s", done.out, re.MULTILINE) for name in cli.BODIES)


def test_tasks_are_listed_and_one_shows_its_options():
    listed = quatrain("tasks")
    assert listed.code == 0
    assert "chain_sum" in listed.out
    for name in ("chain_sum", "reasoning_gym:chain_sum?min_terms=2"):
        shown = quatrain("tasks", name)
        assert shown.code == 0
        assert re.search(r"min_terms\W+2", shown.out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a file of 24 problems, 5 of them held out."""
    here = tmp_path_factory.mktemp("finished")
    task = jsonl(here / "sums.jsonl", [{"prompt": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(24)])
    return train(here / "run", task, "--reward", PARITY, method="grpo", evaluate__problems=5, update__lr=1e-3)


def test_a_run_is_measured_on_its_own_held_out_problems(finished: Path, tmp_path: Path):
    file = tmp_path / "result.json"
    done = quatrain("evaluate", finished, "--json", file)
    assert (done.code, done.err) == (0, "")
    result, last = json.loads(file.read_text()), records(finished / "evaluations.jsonl")[-1]
    assert {key: last[key] for key in result if key != "seconds"} == {k: v for k, v in result.items() if k != "seconds"}
    assert "on 5 problems" in done.out
    more = quatrain("evaluate", finished, "--problems", 9)
    assert "it may have been trained on some of them" in more.out
    assert "on 9 problems" in more.out
    assert "it may have been trained" not in done.out


def test_a_model_is_measured_with_several_answers_each(finished: Path, tmp_path: Path):
    task, file = finished.parent / "sums.jsonl", tmp_path / "result.json"
    reward = ("--set", f"rewards=[{{name: '{PARITY}'}}]", "--set", "max_answer_tokens=4")
    done = quatrain("evaluate", finished / "model", "--task", task, "--samples", 6, "--k", "1,3,6", "--json", file, *reward)
    assert (done.code, done.err) == (0, "")
    result = json.loads(file.read_text())
    assert result["estimates"].keys() == {"pass@1", *(f"{name}@{k}" for name in ("pass", "maj", "distinct") for k in (3, 6))}
    one, three, six = (result["estimates"][f"pass@{k}"]["value"] for k in (1, 3, 6))
    assert 0 < one < three < six <= 1
    assert one == pytest.approx(sum(result["scores"]) / len(result["scores"]))
    assert all(f"{name} " in done.out for name in ("accuracy", "pass@3", "maj@6"))
    assert "6 answers each" in done.out
    assert result["problems"] == len(result["scores"]) == 23, (
        "all of the file but one to train on; the run had no worked examples"
    )


def test_greedy_measurement_is_the_same_every_time_and_sampled_follows_the_seed(finished: Path, tmp_path: Path):
    def scores(*arguments: object) -> list[float]:
        file = tmp_path / "result.json"
        reward = ("--set", f"rewards=[{{name: '{PARITY}'}}]", "--set", "max_answer_tokens=4")
        assert quatrain("evaluate", finished, "--json", file, *reward, *arguments).code == 0
        return json.loads(file.read_text())["scores"]

    assert scores() == scores()
    assert scores("--samples", 8) == scores("--samples", 8)
    assert scores("--samples", 8) != scores("--samples", 8, "--seed", 1)


def test_a_report_tells_several_runs_apart(finished: Path, tmp_path: Path):
    other = train(tmp_path / "other", finished.parent / "sums.jsonl", "--reward", f"{JUDGING}:equal", method="dr_grpo")
    done = quatrain("report", finished, other, "--out", tmp_path / "both.html")
    assert (done.code, done.out) == (0, f"{tmp_path / 'both.html'}\n")
    page = (tmp_path / "both.html").read_text()
    assert all(name in page for name in ("dr_grpo", "other", str(finished.name)))
    alone = quatrain("report", other)
    assert alone.out == f"{other / 'report.html'}\n"
