"""The command that looks up tasks."""

from __future__ import annotations

from argparse import Namespace
from itertools import groupby

from rich.console import Console
from rich.table import Table

from quatrain.prompts import FAMILIES, describe, find_family, task_names
from quatrain.prompts.written import DIFFERENT


def tasks(given: Namespace) -> None:
    """List the tasks, or one task's options."""
    console = Console(highlight=False)
    name = (given.name or "").partition("?")[0]
    if name in FAMILIES or name.startswith("written:"):
        name = name.removeprefix("written:")
        family = find_family(name)
        options = Table("option", "default", "from", "to", title=f"written:{name}", title_justify="left")
        options.add_row(family.dial, str(family.default), "1", str(family.most))
        options.add_row(DIFFERENT, "no end", "1", "")
        console.print(options, _plain(family.about), sep="\n", markup=False)
        return
    if name:
        found = describe(name.removeprefix("reasoning_gym:"))
        options = Table("option", "default", title=f"reasoning_gym:{found.name} ({found.category})", title_justify="left")
        for name, default in found.options.items():
            options.add_row(name, repr(default))
        console.print(options)
        return
    written = Table("written:…", "option", "what is written")
    for name, family in FAMILIES.items():
        written.add_row(name, f"{family.dial}={family.default}", _plain(family.about))
    console.print(written)
    out = Table("category", "reasoning_gym:…")
    for category, members in groupby(task_names(), key=lambda data_set: data_set.category):
        out.add_row(category, ", ".join(member.name for member in members))
    console.print(out)
    console.print("Also tasks: a JSONL or Parquet file, or a Hugging Face data-set folder, with a prompt and an answer column.")


def _plain(text: str) -> str:
    return text.replace("``", "")
