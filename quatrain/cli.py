"""The command line. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from quatrain.errors import ConfigError, StoppedRun

DONE, FAILED, WRONG_USAGE = 0, 1, 2
"""Exit codes."""
BODIES = {
    "train": "running",
    "evaluate": "running",
    "replay": "running",
    "report": "running",
    "compare": "experiments",
    "reproduce": "experiments",
    "methods": "catalogue",
    "oracle": "exactness",
    "stress": "stability",
    "doctor": "stability",
    "tasks": "problems",
}
"""The module of `quatrain.commands` in which each command lives."""
GO_ON = {
    "train": "go on with `quatrain train --resume RUN`",
    **dict.fromkeys(("compare", "reproduce", "stress"), "the same command goes on where it was"),
}
"""What to do where a command was ended before its end."""


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line with the way out."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        choice = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if unknown != message:  # the top parser says this of the commands' options too
            below = [sub for action in self._actions for sub in (action.choices or {}).values() if isinstance(sub, _Parser)]  # type: ignore[union-attr]
            options = {option for parser in (self, *below) for action in parser._actions for option in action.option_strings}
            name = unknown.split()[0].split("=")[0]
            way_out = f": write --set {name[2:]}=…" if _is_setting(name[2:]) else _nearest(name, sorted(options))
            message = f"there is no argument {unknown}{way_out}"
        elif choice is not None:
            message += _nearest(choice[1], re.findall(r"[\w-]+", choice[2]))
        self.exit(WRONG_USAGE, f"quatrain: {message}; see {self.prog} --help\n")


def _is_setting(name: str) -> bool:
    config = importlib.import_module("quatrain.config")
    return name in config.setting_names(config.RunConfig)


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {close[0]}?" if close else ""


def _about_a_run(command: argparse.ArgumentParser) -> None:
    """The options that say what is trained on what."""
    command.add_argument(
        "--task", help="written:NAME or reasoning_gym:NAME[?option=value&…], a JSONL or Parquet file, or a data-set folder"
    )
    command.add_argument("--model", help="smollm2, tunnel, tiny, or a Hugging Face causal language model (folder or id)")
    command.add_argument("--teacher", metavar="MODEL", help="the model to learn from, for methods that distil")
    command.add_argument(
        "--reward", action="append", metavar="NAME[=WEIGHT]", help="a builtin, or path/to/module.py:function; repeat"
    )
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting by its dotted name; repeat")


def _about_many_runs(command: argparse.ArgumentParser, out: str) -> None:
    """The options that say how many runs there are at once, and where they go."""
    command.add_argument("--workers", type=int, metavar="N", help="runs at once, a thread each; default one a core, one on a GPU")
    command.add_argument("--out", metavar="FOLDER", help=f"default {out}; what is there already is not done again")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="quatrain",
        description="Reinforcement-learning post-training: every method is four interchangeable lines, one engine runs them all.",
        epilog="Start with:  quatrain train smollm2-chain-sum",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, about: str, body: str, examples: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog="examples:\n" + "\n".join("  " + line for line in examples.splitlines()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(body=body)
        return sub

    train = command(
        "train",
        "post-train a model, or go on with a run",
        "train",
        "quatrain train smollm2-chain-sum\n"
        "quatrain train my-recipe.yaml --seed 1\n"
        "quatrain train --method grpo --task reasoning_gym:chain_sum --model smollm2 --set update.lr=1e-5\n"
        "quatrain train --method dapo --task problems.jsonl --model path/to/model --reward correct --reward my.py:short=0.1\n"
        "quatrain train --method dpo --task pairs.jsonl --model path/to/model\n"
        "quatrain train --method opd --task problems.jsonl --model path/to/model --teacher path/to/larger\n"
        "quatrain train --resume runs/2026-01-01-grpo-chain_sum-1",
    )
    train.add_argument("recipe", nargs="?", help="a recipe's name or a YAML file; options are applied on top of it")
    train.add_argument("--method", help="a method's id or alias; see `quatrain methods`")
    _about_a_run(train)
    train.add_argument("--seed", help="decides everything that is drawn; default 0")
    train.add_argument("--out", metavar="RUN", help="the run folder; default runs/DATE-METHOD-TASK-N")
    train.add_argument("--resume", metavar="RUN", help="go on with a run that was stopped, to the same bits")
    train.add_argument(
        "--on-collapse", choices=("warn", "stop", "rollback"), help="what to do where the run has collapsed; default warn"
    )

    evaluate = command(
        "evaluate",
        "measure a model or a run on held-out problems: pass@1, pass@k, maj@k and distinct@k, with intervals",
        "evaluate",
        "quatrain evaluate smollm2 --task 'reasoning_gym:chain_sum?max_terms=2'\n"
        "quatrain evaluate runs/2026-01-01-grpo-chain_sum-1\n"
        "quatrain evaluate path/to/model --task problems.jsonl --samples 16 --k 1,4,16",
    )
    evaluate.add_argument("model", metavar="MODEL|RUN", help="a model as in `train`, or a run folder")
    evaluate.add_argument("--task", help="as in `train`; a run's own task if left out")
    evaluate.add_argument(
        "--problems", help="how many held-out problems; default those of the run, or 200, or as many as a file has"
    )
    evaluate.add_argument("--samples", default="1", help="answers per problem; one is greedy, several are sampled; default 1")
    evaluate.add_argument(
        "--k", default=None, help="the k of pass@k, maj@k and distinct@k, separated by commas; default 1 and --samples"
    )
    evaluate.add_argument("--seed", help="which held-out problems; default 0, or the run's")
    evaluate.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting by its dotted name; repeat"
    )
    evaluate.add_argument("--json", metavar="FILE", help="also write the result here")

    compare = command(
        "compare",
        "run arms with several seeds each, and say which is better, with intervals",
        "compare",
        "quatrain compare dr_grpo dapo --task problems.jsonl --model path/to/model --seeds 5 --budget steps=200\n"
        "quatrain compare rloo rloo,method.advantage.scale=group my-recipe.yaml --task problems.jsonl --model path/to/model\n"
        "quatrain compare dpo ipo --task pairs.jsonl --model path/to/model --metric held_out/preference",
    )
    compare.add_argument(
        "arms",
        nargs="+",
        metavar="ARM[,KEY=VALUE…]",
        help="a method's id, a recipe's name or a YAML file, with settings of its own",
    )
    _about_a_run(compare)
    compare.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each arm, with the seeds 0 … N−1; default 5")
    compare.add_argument("--budget", metavar="steps=N", help="what all arms have; default the arms' own steps, if they are equal")
    compare.add_argument(
        "--metric",
        default="accuracy",
        metavar="NAME[:KIND]",
        help="accuracy, pass@k, or a metric; KIND is last, start, mean or slope; default accuracy, at the end",
    )
    _about_many_runs(compare, "runs/compare/ARMS-TASK")

    reproduce = command(
        "reproduce",
        "run what a paper claims, and say whether it held",
        "reproduce",
        "quatrain reproduce\nquatrain reproduce baseline --quick\nquatrain reproduce baseline",
    )
    reproduce.add_argument("name", nargs="?", help="a claim; without one, all claims are listed with what they came to")
    reproduce.add_argument(
        "--quick", action="store_true", help="fewer seeds and steps, within 10 minutes on 2 cores; decides less"
    )
    _about_many_runs(reproduce, "runs/reproduce/NAME")
    reproduce.add_argument("--claims", default="reproductions", metavar="FOLDER", help="where claims are; default reproductions")

    stress = command(
        "stress",
        "run methods under stresses, such as stale rollouts or an engine that computes otherwise, and map which stands what",
        "stress",
        "quatrain stress --methods grpo tis --dials staleness=0,4,16 mismatch=int8\n"
        "quatrain stress --methods all --dials wrong=0.1 lr=4,16 --seeds 3",
    )
    stress.add_argument("--methods", nargs="+", required=True, metavar="ID", help="methods' ids, or all that the task suits")
    stress.add_argument("--dials", nargs="+", required=True, metavar="DIAL=VALUE,…", help="what is done, one dial at a time")
    _about_a_run(stress)
    stress.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each cell, with the seeds 0 … N−1; default 3")
    _about_many_runs(stress, "runs/stress")

    doctor = command(
        "doctor",
        "read a finished or dead run and say what happened to it, the first thing first",
        "doctor",
        "quatrain doctor runs/2026-01-01-grpo-chain_sum-1",
    )
    doctor.add_argument("run", metavar="RUN", help="a run folder")

    methods = command(
        "methods",
        "list the methods, show them by their lines, explain one, compare two, or cite some",
        "methods",
        "quatrain methods\nquatrain methods table\nquatrain methods show grpo\nquatrain methods diff grpo dapo\n"
        "quatrain methods cite grpo dapo",
    )
    methods.add_argument(
        "what",
        nargs="?",
        choices=("list", "table", "show", "diff", "cite"),
        default="list",
        help="list has the claims, table the lines; default list",
    )
    methods.add_argument(
        "names", nargs="*", metavar="ID", help="a method's id or alias: one for show, two for diff, any number for cite"
    )

    oracle = command(
        "oracle",
        "measure methods against the exact gradient of a policy whose every answer is enumerated",
        "oracle",
        "quatrain oracle rloo grpo\nquatrain oracle dapo --staleness 0,1,2,4,8\nquatrain oracle --fixed-points --json found.json",
    )
    oracle.add_argument("names", nargs="*", metavar="ID", help="methods' ids or aliases; default all")
    oracle.add_argument("--staleness", default="0,1,4", help="how many updates ago the batch was sampled; default 0,1,4")
    oracle.add_argument("--fixed-points", action="store_true", help="also show where training with a KL penalty comes to stand")
    oracle.add_argument("--json", metavar="FILE", help="also write what was found here")

    tasks = command(
        "tasks", "list the tasks, or show one task's options", "tasks", "quatrain tasks\nquatrain tasks written:addition"
    )
    tasks.add_argument("name", nargs="?", help="a written task or a reasoning-gym data set, to see its options")

    report = command(
        "report", "write one page about one or several runs", "report", "quatrain report runs/a runs/b --out both.html"
    )
    report.add_argument("runs", nargs="+", metavar="RUN", help="run folders; several are overlaid")
    report.add_argument("--out", metavar="FILE", help="default: report.html in the first run's folder")

    replay = command(
        "replay",
        "run one recorded step again, to the same bits, and show what its gradient was made of",
        "replay",
        "quatrain replay runs/2026-01-01-grpo-chain_sum-1 --step 7",
    )
    replay.add_argument("run", metavar="RUN", help="a run folder")
    replay.add_argument("--step", required=True, type=int, help="which step; 1 is the first")
    replay.add_argument("--tokens", type=int, default=12, help="how many tokens are shown; default 12")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit code."""
    given = parser().parse_args(arguments)
    if given.body in ("train", "evaluate", "replay", "compare", "stress") or (given.body == "reproduce" and given.name):
        print("quatrain: starting …", flush=True)
    go_on = GO_ON.get(given.body, "nothing was changed")
    try:
        code = getattr(importlib.import_module(f"quatrain.commands.{BODIES[given.body]}"), given.body)(given)
    except ConfigError as error:
        print(f"quatrain: {error}", file=sys.stderr)
        return WRONG_USAGE
    except StoppedRun as error:
        print(f"quatrain: the run ended itself: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"quatrain: interrupted: {go_on}", file=sys.stderr)
        return FAILED
    except Exception:
        traceback.print_exc()
        print(f"quatrain: failed, see above: {go_on}", file=sys.stderr)
        return FAILED
    return code or DONE
