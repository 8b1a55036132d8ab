"""The rule ``regex``: what a pattern finds."""

from __future__ import annotations

import re
from collections.abc import Callable

from sdft_cli.errors import UsageError
from sdft_cli.grading import task_rules
from sdft_cli.types import Score


def matching(pattern: str) -> Callable[[str, str], Score]:
    """The rule of ``regex``; raises `UsageError` for a pattern that is no regular expression."""
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise UsageError(
            f"pattern {pattern!r} is no regular expression: {error}", "try it with Python's re module"
        ) from error

    def grade(completion: str, gold: str) -> Score:
        matches = list(compiled.finditer(task_rules.strip_thinking(completion)))
        answer = matches[-1][1 if compiled.groups else 0] if matches else None
        return task_rules.exact(answer.strip() if answer else None, gold)

    return grade
