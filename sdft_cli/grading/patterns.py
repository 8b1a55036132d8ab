"""The rule ``regex``: what a pattern finds in a completion, with no more time than a grader may take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import regex

from sdft_cli.errors import UsageError
from sdft_cli.grading.exactness import same_forms
from sdft_cli.grading.grader import Grader
from sdft_cli.grading.thinking import strip_thinking
from sdft_cli.types import Score

#: Seconds for one completion; and for all that ran out of time together, after which each gets a moment only.
SECONDS, SECONDS_LOST, MOMENT = 1.0, 20.0, 0.02
#: The group that holds the answer, where a pattern names one so; else the first that has matched.
GROUP = "answer"


def matching(pattern: str) -> Callable[[str, str], Score]:
    """The rule of ``regex``; raises `UsageError` for a pattern that is no regular expression."""
    try:
        compiled = regex.compile(pattern, regex.MULTILINE)
    except (regex.error, OverflowError, RecursionError) as error:
        hint = "it is read by Python's `regex` module, which knows all that `re` knows"
        raise UsageError(f"pattern {pattern!r} is no regular expression: {error}", hint) from error
    lost = 0.0

    def grade(completion: str, gold: str) -> Score:
        nonlocal lost
        began = time.monotonic()
        try:
            answer = found(compiled, strip_thinking(completion), SECONDS if lost < SECONDS_LOST else MOMENT)
            expected = found(compiled, gold, SECONDS) if "\n" in gold or compiled.groups else None
        except TimeoutError:
            lost += time.monotonic() - began
            return Score(None, None, f"unscored: the pattern took more than {SECONDS:g} s on this completion")
        if answer is None:
            return Score(0.0, None, f"no match of the pattern; expected {gold.strip()!r}")
        right = same_forms(answer, gold) or (expected is not None and same_forms(answer, expected))
        return Score(
            float(right), answer[:200], "right" if right else f"answered {answer[:80]!r}, expected {gold.strip()!r}"
        )

    return grade


def found(compiled: regex.Pattern[str], text: str, seconds: float) -> str | None:
    """What the last match in ``text`` holds, without white space around it; None for no match and for an empty one.

    Raises `TimeoutError` after ``seconds``.
    """
    matches = deque(compiled.finditer(text, timeout=seconds), maxlen=1)
    if not matches:
        return None
    last = matches[0]
    if GROUP in compiled.groupindex:
        return (last[GROUP] or "").strip() or None
    groups = [group for group in last.groups() if group is not None] if compiled.groups else [last[0]]
    return (groups[0].strip() or None) if groups else None


def _without_pattern(completion: str, gold: str) -> Score:
    return Score(None, None, "unscored: the rule has no pattern")


REGEX = Grader(
    "regex",
    'what a pattern finds last (its group "answer", else its first) equals the gold answer, white space apart',
    "it reads only what the pattern foresees; a completion on which the pattern takes more than a second is unscored",
    _without_pattern,
    compiled=matching,
)
