"""What `quatrain methods` prints, in terminals of several widths and where no terminal reads it."""

import re
import subprocess
import sys

import pytest

from quatrain import objective
from quatrain.methods import METHODS
from quatrain.methods.families import FAMILIES, base, by_family
from quatrain.methods.papers import bibtex
from quatrain.objective import difference
from quatrain.objective.part import brief, numbers
from tests.command_line import quatrain

ORDERED = [name for names in by_family(METHODS).values() for name in names]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int, *arguments: str) -> list[str]:
    """The lines that a terminal of `width` columns shows, without colours."""
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": str(width), "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    done = quatrain("methods", *arguments)
    assert (done.code, done.err) == (0, "")
    return re.sub(r"\x1b\[[\d;]*m", "", done.out).splitlines()


def of_its_own(program: str) -> None:
    """Run `program` in a process of its own."""
    subprocess.run([sys.executable, "-c", f"import sys\n{program}"], check=True, stdout=subprocess.DEVNULL)


def ids(lines: list[str]) -> list[str]:
    """The rows that are listed, in order."""
    first = (re.match(r" (?:  )?([a-z][a-z0-9_:]*)( =|  |$)", line) for line in lines)
    return [found[1] for found in first if found and found[1] in METHODS]


class Names(dict):
    """What a short form is read with: a word before a bracket is a class, alone a part without numbers or a choice."""

    def __init__(self, text: str) -> None:
        self.called = set(re.findall(r"(\w+)\(", text))

    def __missing__(self, name: str) -> object:
        found = getattr(objective, name, None)
        return float(name) if name == "inf" else name if found is None else found if name in self.called else found()


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("what", ["list", "table"])
def test_every_row_is_listed_once_by_family_in_any_terminal(monkeypatch: pytest.MonkeyPatch, what: str, width: int):
    lines = on_a_terminal(monkeypatch, width, what)
    assert max(map(len, lines)) <= width
    assert ids(lines) == ORDERED
    assert [line.split("  ")[0].strip() for line in lines if line.split("  ")[0].strip() in FAMILIES] == list(FAMILIES)
    assert not any("…" in line for line in lines), "something is cut off"


def test_a_list_says_what_papers_claim_and_a_wide_one_where_they_are(monkeypatch: pytest.MonkeyPatch):
    for width in (80, 120):
        text = " ".join(" ".join(on_a_terminal(monkeypatch, width)).split())
        assert METHODS["sft"].claim.partition(": ")[0] in text
        assert (METHODS["grpo"].paper in text) == (width == 120)
        assert ("in 120 columns" in text) == (width == 80)


def test_where_no_terminal_reads_each_row_is_one_line():
    assert quatrain("methods").out == quatrain("methods", "list").out
    listed = quatrain("methods").out.splitlines()
    for name, row in METHODS.items():
        (line,) = (line for line in listed if line.split()[:1] == [name])
        assert line.split(maxsplit=1)[1].split("  ")[0] == row.claim
        assert line.split()[-2:] == [row.paper, row.status]
    shown = quatrain("methods", "table").out.splitlines()
    assert ids(shown) == ORDERED
    assert len([line for line in shown if " + " in line]) == sum(len(row.active) - 1 for row in METHODS.values())


def test_a_table_shows_every_line_of_every_term():
    shown = quatrain("methods", "table").out
    rows = re.split(r"\n (?=(?:  )?[a-z])", shown)
    told = {row.split()[0]: re.sub(r" +", " ", row) for row in rows[1:]}
    for name, row in METHODS.items():
        for term in row.active:
            assert all(brief(part) in told[name] for part in term.parts.values())
            assert term.coefficient == 1 or f"{brief(term.coefficient)} {term.name}" in told[name]
            assert all(origin.value in told[name] for origin in term.on) or term.on == ("policy",)
    assert "clip 0.2" in told["ppo"]
    assert "entropy" not in told["ppo"], "a term that is off is left out"
    assert "0.001 entropy" in told["gfpo"]


def test_the_catalogue_is_read_without_torch():
    lines = [["methods"], *(["methods", *line.split()] for line in ("table", "show grpo", "diff grpo dapo", "cite grpo"))]
    of_its_own(f"from quatrain.cli import main; assert not any(map(main, {lines})); assert 'torch' not in sys.modules")


def test_rows_that_were_read_without_torch_compute_with_it():
    of_its_own("""
from quatrain.methods import METHODS
from quatrain.types import Batch
assert "torch" not in sys.modules
import torch
batch = Batch(reward=torch.tensor([1.0, 0.0]), prompt_id=torch.tensor([0, 0]))
assert METHODS["rloo"].weights(batch, torch.zeros(2, 1)).tolist() == [[0.5], [-0.5]]
""")


def test_short_forms_are_exact():
    parts = {part for row in METHODS.values() for term in row.terms for part in term.parts.values()}
    for part in parts:
        assert eval(brief(part), {"__builtins__": {}}, Names(brief(part))) == part
    assert len({brief(part) for part in parts}) == len(parts)


def test_forms_of_a_method_stand_under_it():
    families = by_family(METHODS)
    assert sorted(ORDERED) == sorted(METHODS)
    assert all(families.values()), "a family without rows"
    for name in METHODS:
        home = next(names for names in families.values() if name in names)
        assert base(name) in home
        assert home.index(base(name)) <= home.index(name)
    with_mine = by_family({"mine:odd": METHODS["dapo"], **METHODS})
    assert "mine:odd" in with_mine["Token ratios"], "its base is no row"


def test_show_says_what_a_run_needs_and_how_each_number_is_set():
    shown = quatrain("methods", "show", "Direct Preference Optimization").out
    assert METHODS["dpo"].explain() in shown
    assert "https://arxiv.org/abs/2305.18290" in shown
    for name, value in METHODS["dpo"].numbers():
        assert f"method.{name}={brief(value)} " in shown
    numbered = list(numbers(METHODS["dpo"].terms[0].advantage))
    assert numbered == [("score", "log_ratio"), ("loss.beta", 0.1), ("loss.gap", 0.0), ("to", "ref")]


def test_show_tells_a_form_from_its_row_and_a_row_its_forms():
    shown = quatrain("methods", "show", "dapo:code").out
    assert "differs from dapo in" in shown
    for line, ours, theirs in difference(METHODS["dapo"], METHODS["dapo:code"]):
        assert re.search(rf"^  {line} +{re.escape(f'{ours} → {theirs}')}$", shown, re.MULTILINE)
    assert "dapo:code: What its code computes" in quatrain("methods", "show", "dapo").out
    assert "other forms" not in quatrain("methods", "show", "grpo").out


@pytest.mark.parametrize("name", ["grpo", "clip_cov:code"])
def test_show_is_broken_between_words_under_what_it_goes_on_with(monkeypatch: pytest.MonkeyPatch, name: str):
    lines = on_a_terminal(monkeypatch, 80, "show", name)
    assert max(map(len, lines)) <= 80
    whole = quatrain_out(monkeypatch, "show", name)
    assert " ".join(" ".join(lines).split()) == " ".join(whole.split())
    after = lines[lines.index(next(line for line in lines if "method.coefficient=1" in line)) + 1]
    assert after.startswith(" " * 37) and after.strip() == "it off.", "it stands under the meaning"


def quatrain_out(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What is printed where no terminal reads."""
    monkeypatch.delenv("FORCE_COLOR")
    return quatrain("methods", *arguments).out


def test_diff_prints_only_what_differs():
    shown = quatrain("methods", "diff", "GRPO", "DAPO").out
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if line.startswith("│")]
    assert rows == [
        ["mask.high", "0.2", "0.28"],
        ["reduce", "PerSequence", "PerGroup"],
        ["kl", "0.04 · Everywhere · Current · StayClose(k3, ref) · Token · PerSequence", "—"],
    ]
    assert re.search(r"┃ grpo +┃ dapo +┃", shown)
    assert "the same method" in quatrain("methods", "diff", "ppo", "ppo_clip").out


def test_cite_prints_each_paper_once():
    assert quatrain("methods", "cite", "Dr.GRPO").out.rstrip("\n") == bibtex("arXiv:2503.20783")
    both = [bibtex(METHODS[name].paper) for name in ("dapo", "ppo")]
    assert quatrain("methods", "cite", "dapo", "dapo:code", "ppo", "clip-higher").out.rstrip("\n") == "\n\n".join(both)


@pytest.mark.parametrize(
    ("line", "fault", "way_out"),
    [
        ("cite", "`methods cite` takes 1 ids and got 0", "write quatrain methods cite ID"),
        ("cite gpro", "no method 'gpro'", "or grpo"),
        ("table grpo", "`methods table` takes 0 ids and got 1", "write quatrain methods table"),
        ("show grpo dapo", "`methods show` takes 1 ids and got 2", "write quatrain methods show ID"),
        ("tabel", "'tabel'", "did you mean table?"),
    ],
)
def test_wrong_use_is_one_line_with_the_way_out(line: str, fault: str, way_out: str):
    done = quatrain("methods", *line.split())
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert fault in done.err
    assert way_out in done.err
