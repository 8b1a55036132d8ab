"""Can a task be won at all? Its own gold answers and demonstrations, graded like completions.

A row whose gold gets no credit counts against every model alike: the grader misreads it, or the row is wrong. Left out:
rows that the grader does not score (they need a judge), and rows without a demonstration and an answer of which it is
known how a completion writes it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sdft_cli.errors import UsageError
from sdft_cli.types import Example, Task

#: Seconds after which grading stops, once this many rows are graded: some graders run code.
SECONDS, FEW = 3.0, 8


def check_gold(task: Task, rows: Sequence[Example], where: str) -> list[str]:
    """What to say of rows that cannot be won. Raises `UsageError` where no row can."""
    began, graded = time.monotonic(), dict[str, bool]()
    for example in rows:
        if len(graded) >= FEW and time.monotonic() - began > SECONDS:
            break
        if (won := wins(task, example)) is not None:
            graded[example.id] = won
    lost = [row for row, won in graded.items() if not won]
    if not lost:
        return []
    if len(lost) == len(graded) > 1:
        raise UsageError(
            f"{where}: the grader of {task.name} gives no credit to the gold of any of {len(lost)} rows ({lost[0]})",
            "check the task's grader and the rows' answers: nothing could be measured or rewarded",
        )
    count = f"{len(lost)} of {len(graded)} rows cannot be won"
    return [f"{where}: {count}: the grader gives their gold no credit, such as {lost[0]}"]


def wins(task: Task, example: Example) -> bool | None:
    """Whether the row's gold gets credit as a completion; None where it is not scored, or there is none to judge by."""
    sure = [text for text in (demonstrated(example), rendered(task, example)) if text]
    if not sure:
        return None
    # a bare answer may win, but need not: it is not always a completion
    bare = [example.answer] if isinstance(example.answer, str) else []
    scores = [task.grade(text, example).value for text in [*sure, *bare]]
    scored = [value for value in scores if value is not None]
    return max(scored) > 0 if scored else None


def demonstrated(example: Example) -> str:
    """The demonstration, of several turns the last one."""
    shown = example.demonstration
    return shown if isinstance(shown, str) else str(shown[-1].get("content") or "") if shown else ""


def rendered(task: Task, example: Example) -> str:
    """The gold answer as a completion."""
    return task.render(example.answer) if task.render and example.answer is not None else ""
