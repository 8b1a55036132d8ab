"""Units: the tasks and suites that are measured and kept as a whole, and the names of their files."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdft_cli.errors import UsageError
from sdft_cli.grading.named_rules import GRADERS
from sdft_cli.models import digests
from sdft_cli.types import Battery, Example, Suite, Task

SUITE = "suite-"
SAMPLES = "-samples"


def task_unit(task: str, split: str = "test") -> str:
    """A task's own name for its test split, with the split's for another one."""
    return task if split == "test" else f"{task}-{split}"


def suite_unit(suite: str) -> str:
    """All parts of a suite."""
    return SUITE + suite


def samples_unit(task: str) -> str:
    """The completions that pass@k is estimated from."""
    return task + SAMPLES


@dataclass(frozen=True)
class Unit:
    """A task with the rows that it is scored on, by split, or a suite. ``validation`` rows are there for a run's own
    task, whose loss may be measured on them.

    ``in_run``: it is part of the run and asked for under the run's settings, so the run's folder keeps it. A task that
    the run holds but whose data has been deleted has neither task nor suite: it can be read, not measured.
    """

    name: str
    in_run: bool
    task: Task | None = None
    suite: Suite | Battery | None = None
    splits: dict[str, list[Example]] = field(default_factory=dict, repr=False)
    validation: list[Example] = field(default_factory=list, repr=False)

    @property
    def title(self) -> str:
        """The name of the task or suite."""
        return self.suite.name if self.suite else self.name

    @property
    def graded(self) -> Task:
        """The task; `UsageError` where its data has been deleted."""
        if self.task is None:
            raise UsageError(
                f"there is no dataset of {self.name}, and its questions are needed to measure more",
                "name the folder that holds it with --data",
            )
        return self.task

    @property
    def grader(self) -> str:
        """A digest of what grades its completions: the code, and a data-made task's rule with that rule's code."""
        if isinstance(self.suite, Battery):
            return digests.of_grader(type(self.suite).measure)
        graded = self.task or self.suite
        if graded is None:
            return ""
        rule = self.task.grader if self.task else None
        named = GRADERS.get(rule.get("name", "")) if rule else None
        code = named and digests.of_grader(named.score_row or named.grade)
        return digests.of([digests.of_grader(graded.grade), rule, code])
