"""Which problems, and how they are put to the policy."""

from quatrain.prompts.problem import Problem, Task, Unlabelled
from quatrain.prompts.reasoning import DataSet, describe, task_names
from quatrain.prompts.source import Source
from quatrain.prompts.tasks import open_task
from quatrain.prompts.templates import Template, resolve_template
from quatrain.prompts.written import FAMILIES, Family, find_family

__all__ = [
    "FAMILIES",
    "DataSet",
    "Family",
    "Problem",
    "Source",
    "Task",
    "Template",
    "Unlabelled",
    "describe",
    "find_family",
    "open_task",
    "resolve_template",
    "task_names",
]
