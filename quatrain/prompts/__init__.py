"""Which problems, and how they are put to the policy."""

from quatrain.prompts.problem import Problem, Task, Unlabelled
from quatrain.prompts.reasoning import DataSet, describe, task_names
from quatrain.prompts.source import Source
from quatrain.prompts.tasks import open_task
from quatrain.prompts.templates import Template, resolve_template

__all__ = [
    "DataSet",
    "Problem",
    "Source",
    "Task",
    "Template",
    "Unlabelled",
    "describe",
    "open_task",
    "resolve_template",
    "task_names",
]
