"""All text that the code already says: ``python -m tools.generate`` writes it, ``--check`` prints what is stale and fails.

Whole pages stand in `PAGES`. In pages that people write, what stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``
is the text of `BLOCKS` of that name.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import quatrain
from benchmarks import report as speed
from quatrain.claims import Expectation, Place, find_claims, together
from quatrain.cli import parser
from quatrain.commands.catalogue import LINES, terms
from quatrain.commands.exactness import BETA, estimates_table, fixed_points_table
from quatrain.config import RunConfig, TaskConfig
from quatrain.diagnostics.enumeration import ONE_TOKEN, TINY, World
from quatrain.diagnostics.evaluation import Estimate
from quatrain.methods.families import FAMILIES, base, by_family
from quatrain.objective import (
    EntropyBonus,
    PartitionLoss,
    ValueLoss,
    advantages,
    denominators,
    likelihoods,
    masks,
    preferences,
    reductions,
)
from quatrain.objective.composition import findings
from quatrain.objective.part import meanings
from quatrain.objective.rules import RULES, Rule
from quatrain.prompts import FAMILIES as WRITTEN
from quatrain.prompts import open_task
from quatrain.recipes import RECIPES
from quatrain.types import Origin
from reproductions.mechanisms import results as mechanics
from reproductions.rows import results
from reproductions.stability import page as stability
from reproductions.tunnel import results as wind
from tools.markdown import table

ROOT = Path(__file__).parent.parent
MARKED = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n)(?:.*?\n)??(<!-- end -->)", re.DOTALL)
EXACTNESS = ROOT / "docs/exactness.json"
"""What `make exactness` found."""
NOTE = "<!-- Written by tools/generate.py. -->\n\n"

FIRST = (
    "loop.py", "types.py", "prompts", "rollouts", "policies", "rewards", "objective", "methods", "update",
    "diagnostics", "recipes", "config.py", "run.py", "experiment.py", "claims.py", "cli.py", "commands",
)  # fmt: skip
"""The order in which the tree is read; what is not here comes after, by name."""
UNTOLD = {"__init__.py", "__main__.py"}
"""Files that the tree leaves out."""

ABOUT_SETTINGS = """\
Every setting by its dotted name, for `--set NAME=VALUE`; in a YAML recipe the dots are levels. A name that does not exist and a
value that is not allowed are errors, told in one line before a model is loaded. The numbers of a method's parts are set under
`method.`, as in `--set method.mask.high=0.3`: `quatrain methods show ID` names the parts, and the pages on parts say what each
number does."""
EXIT_CODES = """\
Exit codes: 0 done; 1 failed, ended itself, interrupted, some of the runs without a result, or a replay that came out otherwise;
2 asked for something that cannot be."""


def tree() -> str:
    """The package's modules with the first line of what each says of itself."""
    names = {p.name for p in (ROOT / "quatrain").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()} - UNTOLD
    ordered = [*(name for name in FIRST if name in names), *sorted(names - set(FIRST))]
    lines = (f"  {name if '.' in name else name + '/':<15}{_opening(name)}".rstrip() for name in ordered)
    return "\n".join(["```text", "quatrain/", *lines, "```"])


def _opening(name: str) -> str:
    path = ROOT / "quatrain" / name
    text = ast.get_docstring(ast.parse((path / "__init__.py" if path.is_dir() else path).read_text()))
    return (text or "").partition("\n")[0].rstrip(".:")


def expectations() -> str:
    """What the demo's recipe says of itself."""
    recipe = RECIPES["smollm2-chain-sum"]
    return f"> {recipe.about} **Expect:** {recipe.expects}"


def families() -> str:
    """How many rows there are, and which methods of which family."""
    rows, papers = quatrain.METHODS, {row.paper for row in quatrain.METHODS.values()}
    forms = sum(base(name) != name for name in rows)
    said = f"{len(rows)} rows, {forms} of which are other forms of a method, such as `ID:code`, from {len(papers)} papers:"
    head = "| family | methods | in common |\n|---|---|---|"
    groups = by_family(rows).items()
    lines = (f"| {home} | {_codes(name for name in names if base(name) == name)} | {FAMILIES[home]} |" for home, names in groups)
    return "\n".join([said, "", head, *lines])


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def catalogue() -> str:
    """Every row, family by family: its lines, a term a row, and then what is said of it."""
    out = []
    for home, names in by_family(quatrain.METHODS).items():
        head = f"| | {' | '.join(LINES)} | on |\n|{'---|' * (len(LINES) + 2)}"
        rows = [_term(label, lines) for name in names for label, lines in terms(name)]
        out += [f"## {home}", f"{FAMILIES[home][0].upper()}{FAMILIES[home][1:]}.", "\n".join([head, *rows]), *map(_said, names)]
    return "\n\n".join(out)


def _term(label: str, lines: dict[str, str]) -> str:
    cells = [f"`{lines[line]}`" if line in lines else "" for line in LINES]
    name, equals, rest = label.strip().partition(" = ")
    first = label.strip() if label.strip().startswith("+") else f"`{name}`{equals}{rest}"
    return f"| {' | '.join([first, *cells, lines.get('on', '').removeprefix('on ')])} |"


def _said(name: str) -> str:
    row = quatrain.METHODS[name]
    aka = f", also {_codes(row.aka)}" if row.aka else ""
    paper = f"[{row.paper.removeprefix('https://')}]({row.link})"
    return f"`{name}` ({paper}{aka}), {row.status}\n: {row.claim} {row.note}".strip()


def part_of_the_example() -> str:
    """The part of the worked example, as it stands in its module."""
    return _source("quatrain/objective/masks.py", "SoftGate")


def row_of_the_example() -> str:
    """Its row."""
    path = "quatrain/methods/catalogue.py"
    source = (ROOT / path).read_text()
    rows = next(node.value for node in ast.parse(source).body if isinstance(node, ast.AnnAssign))
    assert isinstance(rows, ast.Dict)
    (row,) = (v for k, v in zip(rows.keys, rows.values, strict=True) if isinstance(k, ast.Constant) and k.value == "sapo")
    return f'```python title="{path}"\n    "sapo": {ast.get_source_segment(source, row)},\n```'


def loss_of_the_example() -> str:
    """Its published loss."""
    return _source("tests/reference/trust_region.py", "sapo")


def _source(path: str, name: str) -> str:
    """What is called `name` in a file of the repository."""
    source = (ROOT / path).read_text()
    (node,) = (n for n in ast.parse(source).body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    text = "\n".join(source.splitlines()[first - 1 : node.end_lineno])
    return f'```python title="{path}"\n{text}\n```'


def cost() -> str:
    """How long the parts of the worked example are."""
    blocks = [part_of_the_example(), row_of_the_example(), loss_of_the_example()]
    lines = [sum(bool(line.strip()) for line in block.splitlines()[1:-1]) for block in blocks]
    return "**A part of {} lines, a row of {}, a loss of {}**, blank ones not counted.".format(*lines)


def worlds() -> str:
    """The worlds in which methods are measured: each answer, its probability and its reward."""
    return _markdown(_answers({"first prompt": TINY.of(0), "second prompt": TINY.of(1), "one token": ONE_TOKEN}))


def _answers(worlds: dict[str, World]) -> Iterator[list[str]]:
    yield ["", "answer", "tokens", "π", "π_ref", "reward", f"π_ref·exp(r/β)/Z, β = {BETA:g}"]
    for name, world in worlds.items():
        columns = (world.probability, world.logp_ref.sum(2).exp(), world.reward, world.posterior(BETA))
        for n, text in enumerate(world.answers):
            yield [name, "".join(map(str, text)), str(len(text)), *(f"{column[0, n].item():.3g}" for column in columns)]


def exactness() -> str:
    """Every row's estimates against the exact gradient, one table for each staleness."""
    found = json.loads(EXACTNESS.read_text())
    titles = {k: f"### Sampled {k} update{'s' * (k > 1)} ago" if k else "### On-policy" for k in found["staleness"]}
    return "\n\n".join(text for k, title in titles.items() for text in (title, _markdown(estimates_table(found, k))))


def unfit() -> str:
    """Which rows are not measured, and why."""
    return _reasons(json.loads(EXACTNESS.read_text())["unfit"])


def _reasons(why: dict[str, str]) -> str:
    return "\n".join(
        f"* {', '.join(f'`{name}`' for name in why if why[name] == reason)}: {reason}." for reason in dict.fromkeys(why.values())
    )


def fixed_points() -> str:
    """How far from the posterior training with a KL penalty ends, and of which rows it is not known."""
    found = json.loads(EXACTNESS.read_text())
    return f"{_markdown(fixed_points_table(found))}\n\nNot followed:\n\n{_reasons(found['unfollowed'])}"


def trained() -> str:
    """What `make rows` found."""
    return results.markdown()


def written_tasks() -> str:
    """The written tasks, each with a problem."""
    rows = []
    for name, family in WRITTEN.items():
        problem = next(open_task(TaskConfig(name=f"written:{name}")).problems(0))
        about = _plain(family.about).partition(":")[0]
        rows.append([f"`{name}`", f"`{family.dial}`", about, f"`{problem.question}`", f"`{problem.demonstration}`"])
    return table(["`written:`", "dial", "what is written", "a question at the default", "its solution"], rows)


def tunnel_made() -> str:
    """How long pre-training took."""
    return f"{wind.read()['made_in']:.0f} seconds"


def tunnel_start() -> str:
    """What `make tunnel` found the start to be able to do."""
    rows = []
    for name, found in wind.read()["start"].items():
        cells = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in found]
        default = wind.LEVELS.index(WRITTEN[name].default)
        cells[default] = f"**{cells[default]}**"
        rows.append([f"`{name}`", *cells])
    return table(["`written:`", *map(str, wind.LEVELS)], rows)


def tunnel_speed() -> str:
    """How fast `make tunnel` found runs to be."""
    found = wind.read()
    rows = [
        [f"`{s['method']}`", *(f"{s[stage]:.2f}" for stage in ("rollout", "reward", "update", "total", "processor"))]
        for s in found["speed"]
    ]
    head = ["method", "rollout", "reward", "update", "a step", "processor time"]
    made = found["made_with"]
    return f"{table(head, rows)}\n\nWith torch {made['torch']} and Python {made['python']}, on {made['cpus']} CPUs."


def claims() -> str:
    """Every claim, and what its last full run came to."""
    return "\n\n".join(_claim(name, place) for name, place in find_claims(ROOT / "reproductions").items())


def _claim(name: str, place: Place) -> str:
    claim, last = place.read(), place.last()
    paper = _linked(claim.paper)
    said = f"## {name}\n\n{claim.claim} ({paper}) Measured by `{claim.metric}`"
    note = [claim.note.strip()] if claim.note else []
    if last is None:
        return "\n\n".join([f"{said}. **Not run.**", *note])
    made, runs = last["made_with"], sum(len(arm["runs"]) for arm in last["arms"].values())
    head = ["better", "than", "difference", "smallest that counts", "verdict"]
    rows = [
        _compared(e, _estimate(c["difference"], "+.3g"), c["verdict"])
        for e, c in zip(claim.comparisons, last["comparisons"], strict=True)
    ]
    if any(e.says for e in claim.comparisons):
        head.append("that is")
    else:
        rows = [row[:-1] for row in rows]
    arms = [
        [
            f"`{arm}`",
            _estimate(a["iqm"], ".3g"),
            str(sum(bool(run["failure"]) for run in a["runs"])),
            f"{a['tokens']:,.0f}",
            f"{a['seconds']:.0f}",
        ]
        for arm, a in last["arms"].items()
    ]
    return "\n\n".join(
        [
            f"{said}, with {claim.seeds} seeds for each arm and {last['steps']} steps: **{last['verdict']}**.",
            table(head, rows),
            table(["arm", "interquartile mean", "failed runs", "tokens of a run", "seconds of a run"], arms),
            f"{runs} runs, {last['seconds']:.0f} seconds on {made['cpus']} cores in all, with "
            f"torch {made['torch']}, transformers {made['transformers']}, rliable {made['rliable']} and Python {made['python']}.",
            *note,
        ]
    )


def mechanisms() -> str:
    """Every claim about a mechanism, and what was measured."""
    found = mechanics.read()
    made = found["made_with"]
    told = [_mechanism(claim, found["mechanisms"].get(name)) for name, claim in mechanics.MECHANISMS.items()]
    with_what = f"With torch {made['torch']}, transformers {made['transformers']} and Python {made['python']}."
    return "\n\n".join([*told, with_what])


def _mechanism(claim: mechanics.Mechanism, found: dict[str, Any] | None) -> str:
    rows = ", ".join(f"`{row}`" if row in quatrain.METHODS else row for row in claim.rows)
    said = f"### {claim.name}\n\n{claim.says} ({_linked(claim.paper)}; {rows})"
    measured = f"Measured: {claim.measured}."
    note = [claim.note] if claim.note else []
    if found is None:
        return "\n\n".join([f"{said} **Not run.**", measured, *note])
    verdicts = claim.judge(found["samples"])
    head = ["better", "than", "difference", "smallest that counts", "verdict", "that is"]
    compared = table(
        head,
        [
            _compared(v.expected, format(v.difference, "+.3g") if v.difference else "–", v.judgement, claim.metric)
            for v in verdicts
        ],
    )
    took = f"{len(found['samples'])} seeds, {found['seconds']} seconds of one core."
    return "\n\n".join([f"{said} **{together(verdicts).capitalize()}.**", measured, compared, took, *note])


def _compared(e: Expectation, difference: str, verdict: str, metric: str | None = None) -> list[str]:
    """A comparison as a row; its sides are measured by `metric` where they name nothing else."""
    sides = [_side(arm, other or metric) for arm, other in e.sides]
    return [*sides, difference, f"{e.smallest_effect:+g}", f"**{verdict}**", e.says]


def _side(arm: str, metric: str | None) -> str:
    return f"`{arm}`, `{metric}`" if metric else f"`{arm}`"


def _estimate(found: dict[str, float | None] | None, form: str) -> str:
    if found is None:
        return "–"
    low, high = (sign * math.inf if bound is None else bound for bound, sign in ((found["low"], -1), (found["high"], 1)))
    return format(Estimate(found["value"] or 0.0, low, high, 0), form)


def _markdown(rows: Iterator[list[str]]) -> str:
    head = next(rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *rows))


def verdicts() -> str:
    """What the checker makes of each row that it judges, and why it does not judge the others."""
    meant = {name: quatrain.meaning(row) for name, row in quatrain.METHODS.items()}
    judged = {name: m for name, m in meant.items() if m.on_policy != "not judged"}
    rows = [[f"`{name}`", m.on_policy, m.stale, ", ".join(f"[{r}](#{r})" for r in m.because)] for name, m in judged.items()]
    others = {name: ", ".join(m.because) for name, m in meant.items() if name not in judged}
    return f"{table(['method', 'on-policy', 'stale', 'because of'], rows)}\n\nNot judged:\n\n{_reasons(others)}"


def rules() -> str:
    """The rules of composition in a table."""
    rows = [[f"[{rule.id}](#{rule.id})", rule.severity, rule.about[0], rule.biased or ""] for rule in RULES]
    return table(["rule", "severity", "says", "bias"], rows)


def rule_examples() -> str:
    """Each rule with what the checker says of its example."""
    return "\n\n".join(map(_rule, RULES))


def _rule(rule: Rule) -> str:
    statement, why, source = rule.about
    found = [finding for finding in findings(rule.example) if finding.rule == rule.id]
    lines = [*map(_code, rule.example), *map(str, found), "", "not:", *map(_code, rule.counterexample)]
    told = filter(None, [statement, why, _linked(f"Source: {source}.") if source else ""])
    return "\n\n".join([f"### {rule.id}", " ".join(told), "```text\n" + "\n".join(lines) + "\n```"])


def _code(value: Any) -> str:
    """A part or term as one writes it, without most of what is as it is by default."""
    if isinstance(value, Origin):
        return f"Origin.{value.name}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_code, value))},)"
    if not is_dataclass(value):
        return "math.inf" if value == math.inf else repr(value)
    told = {f.name: getattr(value, f.name) for f in fields(value)}
    told = {f.name: told[f.name] for f in fields(value) if told[f.name] != f.default or f.name in ("denominator", "advantage")}
    return f"{type(value).__name__}({', '.join(f'{name}={_code(own)}' for name, own in told.items())})"


def command_line() -> str:
    """Every command with its arguments and examples."""
    top = parser()
    out = [NOTE + "# Command line", f"`{top.prog}`: {top.description}"]
    (commands,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        title, *examples = (command.epilog or "").splitlines()
        rows = [f"| {_argument(a)} | {_escaped(a.help or '')} |" for a in command._actions if a.dest != "help"]
        out += [f"## `quatrain {name}`", command.description or "", "\n".join(["| argument | meaning |", "|---|---|", *rows])]
        out += [f"{title.capitalize()}", "```bash\n" + "\n".join(line.strip() for line in examples) + "\n```"]
    return "\n\n".join([*out, EXIT_CODES]) + "\n"


def _argument(action: argparse.Action) -> str:
    names = action.option_strings or []
    choices = "\\|".join(action.choices) if action.choices else ""
    value = "" if action.nargs == 0 else str(choices or action.metavar or action.dest.upper())
    value = value.replace("|", "\\|") if not choices else value
    text = f"`{' '.join(filter(None, [', '.join(names), value]))}`"
    return text + (" (optional)" if not names and action.nargs in ("?", "*") else "")


def settings() -> str:
    """The tree of settings: name, default, what is allowed, meaning."""
    schema = RunConfig.model_json_schema()
    whole, sections = [], []
    for name, entry in schema["properties"].items():
        inner = _section(entry)
        if inner is None:
            whole.append(_setting(name, entry, name in schema.get("required", [])))
        else:
            sections.append(_settings_of(name, entry, schema["$defs"]))
    return "\n\n".join([NOTE + "# Settings", ABOUT_SETTINGS, "## The run", _table(whole), *sections]) + "\n"


def _settings_of(name: str, entry: dict[str, Any], known: dict[str, Any]) -> str:
    section = known[_section(entry) or ""]
    dotted = f"{name}[]" if entry.get("type") == "array" else name
    rows, nested = [], []
    for key, value in section["properties"].items():
        if _section(value) is None:
            rows.append(_setting(f"{dotted}.{key}", value, key in section.get("required", [])))
        else:
            nested.append(_settings_of(f"{dotted}.{key}", value, known))
    several = " A list: each item has these settings." if dotted.endswith("[]") else ""
    absent = " Not used unless one of these is set." if any(kind.get("type") == "null" for kind in entry.get("anyOf", [])) else ""
    said = _plain(entry.get("description") or section.get("description", "")) + several + absent
    return "\n\n".join(filter(None, [f"## {name}", said.strip(), _table(rows), *nested]))


def _section(entry: dict[str, Any]) -> str | None:
    """The name of the section that a setting is, or None."""
    for part in (entry, entry.get("items", {}), *entry.get("anyOf", [])):
        if "$ref" in part:
            return part["$ref"].rpartition("/")[2]
    return None


def _table(rows: list[str]) -> str:
    return "\n".join(["| setting | default | allowed | meaning |", "|---|---|---|---|", *rows])


def _setting(name: str, entry: dict[str, Any], required: bool) -> str:
    default = "required" if required else f"`{_value(entry.get('default'))}`"
    return f"| `{name}` | {default} | {_allowed(entry)} | {_escaped(_plain(entry.get('description', '')))} |"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else "''" if value == "" else value if isinstance(value, str) else json.dumps(value)


def _allowed(entry: dict[str, Any]) -> str:
    if "anyOf" in entry:
        return " or ".join(map(_allowed, entry["anyOf"]))
    if "enum" in entry:
        return ", ".join(f"`{choice}`" for choice in entry["enum"])
    kind: str = entry.get("type", "")
    if kind == "array":
        return f"{len(entry['prefixItems'])} numbers" if "prefixItems" in entry else f"list of {_allowed(entry['items'])}"
    bounds = [f"{sign} {entry[key]:g}" for key, sign in _BOUNDS.items() if key in entry]
    return f"{_KINDS.get(kind, kind)} {', '.join(bounds)}".strip()


_BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
_KINDS = {"string": "text", "boolean": "`true`, `false`", "object": "mapping", "null": "none"}


def parts_page(title: str, module: ModuleType, classes: list[type] | None = None) -> Callable[[], str]:
    """The page of a module's parts."""

    def page() -> str:
        chosen = classes or [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
        chosen = [c for c in chosen if is_dataclass(c) and all(f.default is not MISSING for f in fields(c))]
        intro = (module.__doc__ or "").partition("\n\n")[2] if classes is None else ""
        where = f"Code: `{module.__name__.replace('.', '/')}.py`."
        return "\n\n".join(filter(None, [NOTE + f"# {title}", _plain(intro), *map(_part, chosen), "---", where])) + "\n"

    return page


def _part(part: type) -> str:
    source = Path(sys.modules[part.__module__].__file__ or "").read_text()
    (node,) = (n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == part.__name__)
    summary, *rest = (ast.get_docstring(node) or "").split("\n\n")
    formula = [f"```text\n{_dedented(p)}\n```" for p in rest if p.startswith("    ")]
    source_line, text = "", []
    for paragraph in (p for p in rest if not p.startswith("    ")):
        if paragraph.startswith("Source:"):
            source_line = _linked(_plain(paragraph))
        else:
            text.append(_plain(paragraph))
    told = meanings(part)
    names = [f for f in fields(part) if f.name not in ("name", "on", "reduce", "advantage") or f.name in told]  # type: ignore[arg-type]
    rows = [f"| `{f.name}` | `{_signature(f.default)}` | {_escaped(_plain(told.get(f.name, '')))} |" for f in names]
    table = ["\n".join(["| number | default | meaning |", "|---|---|---|", *rows])] if rows else []
    facts = _facts(part)
    return "\n\n".join([f"## {part.__name__}", _plain(summary), *formula, *text, *table, source_line, facts])


def _facts(part: type) -> str:
    users = []
    for name, row in quatrain.METHODS.items():
        using = [term for term in row.terms if any(isinstance(inner, part) for inner in _within(term))]
        if using:
            users.append(f"`{name}`" + ("" if any(term.coefficient for term in using) else " (off)"))
    reads = sorted(getattr(part(), "needs", ()))
    said = [f"Reads {', '.join(f'`{name}`' for name in reads)}." if reads else ""]
    said += [f"Used by {', '.join(users)}." if users else "Used by no row yet."]
    return " ".join(filter(None, said))


def _within(part: Any) -> Iterator[Any]:
    """A part and the parts that it is made of."""
    yield part
    for item in fields(part):
        if is_dataclass(getattr(part, item.name)):
            yield from _within(getattr(part, item.name))


def _signature(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _dedented(text: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in text.splitlines())


def _plain(text: str) -> str:
    """Docstring markup as Markdown, on one line a paragraph."""
    text = re.sub(r":\w+:`[.~]?([^`]+)`", r"`\1`", text).replace("``", "`")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _linked(text: str) -> str:
    text = re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"(?<!\()(https?://[^\s;]+?)(?=[;.]?(\s|$))", r"<\1>", text)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


BLOCKS: dict[str, Callable[[], str]] = {
    "tree": tree,
    "families": families,
    "expectations": expectations,
    "catalogue": catalogue,
    "cost": cost,
    "part-of-the-example": part_of_the_example,
    "row-of-the-example": row_of_the_example,
    "loss-of-the-example": loss_of_the_example,
    "worlds": worlds,
    "exactness": exactness,
    "unfit": unfit,
    "fixed-points": fixed_points,
    "rows": trained,
    "claims": claims,
    "mechanisms": mechanisms,
    "written": written_tasks,
    "tunnel-made": tunnel_made,
    "tunnel-start": tunnel_start,
    "tunnel-speed": tunnel_speed,
    "speed-targets": speed.targets,
    "speed-machine": speed.machine,
    "speed-stages": speed.stages,
    "speed-peers": speed.peers,
    "speed-learning": speed.learning,
    "speed-growth": speed.growth,
    "speed-gpu": speed.gpu,
    "map-made": stability.made,
    "accuracy-map": stability.accuracy_map,
    "collapse-map": stability.collapse_map,
    "published": stability.published,
    "which": stability.which,
    "map-cells": stability.cells,
    "signs": stability.signs,
    "signs-tried": stability.tried,
    "meanings": verdicts,
    "rules": rules,
    "rule-examples": rule_examples,
}
PAGES: dict[str, Callable[[], str]] = {
    "docs/parts/masks.md": parts_page("Masks", masks),
    "docs/parts/denominators.md": parts_page("Denominators", denominators),
    "docs/parts/advantages.md": parts_page("Advantages", advantages),
    "docs/parts/preferences.md": parts_page("Preferences", preferences),
    "docs/parts/likelihoods.md": parts_page("Likelihoods", likelihoods),
    "docs/parts/reductions.md": parts_page("Reductions", reductions),
    "docs/parts/terms.md": parts_page(
        "Further terms", sys.modules[EntropyBonus.__module__], [EntropyBonus, ValueLoss, PartitionLoss]
    ),
    "docs/reference/settings.md": settings,
    "docs/reference/command-line.md": command_line,
    "docs/assets/growth.svg": speed.growth_curves,
}


def written() -> Iterator[tuple[Path, str]]:
    """Every file with generated text in it, and what it should hold."""
    for name, page in PAGES.items():
        yield ROOT / name, page()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text()
        if str(path.relative_to(ROOT)) not in PAGES and MARKED.search(text):
            yield path, MARKED.sub(lambda found: found[1] + BLOCKS[found["name"]]() + "\n" + found[3], text)


def stale() -> Iterator[str]:
    """A diff for each file whose generated text is not what it should be."""
    for path, wanted in written():
        name = str(path.relative_to(ROOT))
        found = path.read_text() if path.exists() else ""
        if found != wanted:
            yield "\n".join(difflib.unified_diff(found.splitlines(), wanted.splitlines(), name, name, n=1, lineterm=""))


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tools.generate", description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing, and fail where something is stale")
    if arguments.parse_args().check:
        faults = list(stale())
        print("\n\n".join([*faults, "stale: run `python -m tools.generate`"]) if faults else "everything generated is current")
        return bool(faults)
    for path, wanted in written():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
