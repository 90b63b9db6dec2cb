"""The command that looks up tasks."""

from __future__ import annotations

from argparse import Namespace
from itertools import groupby

from rich.console import Console
from rich.table import Table

from quatrain.prompts import describe, task_names


def tasks(given: Namespace) -> None:
    """List the tasks, or one task's options."""
    console = Console(highlight=False)
    if given.name:
        found = describe(given.name.removeprefix("reasoning_gym:").partition("?")[0])
        options = Table("option", "default", title=f"reasoning_gym:{found.name} ({found.category})", title_justify="left")
        for name, default in found.options.items():
            options.add_row(name, repr(default))
        console.print(options)
        return
    out = Table("category", "reasoning_gym:…")
    for category, members in groupby(task_names(), key=lambda data_set: data_set.category):
        out.add_row(category, ", ".join(member.name for member in members))
    console.print(out)
    console.print("Also tasks: a JSONL or Parquet file, or a Hugging Face data-set folder, with a prompt and an answer column.")
