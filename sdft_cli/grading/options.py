"""Which of a row's options a completion names by its text, where the row tells them (`Example.meta["choices"]`)."""

from __future__ import annotations

from collections.abc import Sequence

from sdft_cli.grading.containment import occurrences
from sdft_cli.grading.exactness import same, stated_forms
from sdft_cli.grading.final_answer import Statement, statements
from sdft_cli.grading.words import tokens
from sdft_cli.types import Example

#: An unmarked text of more words may mention an option without answering with it.
_SHORT = 30


def options_of(row: Example) -> list[str]:
    """The texts of the row's options; none where it does not tell them, or where they are single letters."""
    options = row.meta.get("choices")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        return []
    return options if any(len(option.strip()) > 1 for option in options) else []


def option_said(completion: str, options: Sequence[str]) -> int | None:
    """The place of the option whose text is the final answer."""
    first = statements(completion)[0]
    forms = {same(form) for form in stated_forms(first)}
    return _sole([place for place, option in enumerate(options) if same(option) in forms])


def option_mentioned(completion: str, options: Sequence[str]) -> int | None:
    """The place of the only option whose text the final answer contains; one that is a part of another's is not one."""
    first: Statement = statements(completion)[0]
    if not first.marked and len(first.text.split()) > _SHORT:
        return None
    given = tokens(first.text)
    spans = [(place, span) for place, option in enumerate(options) for span in occurrences(given, option)]
    whole = {
        place
        for place, (start, end) in spans
        if not any(a <= start and end <= b and (a, b) != (start, end) for _, (a, b) in spans)
    }
    return _sole(sorted(whole))


def _sole(places: Sequence[int]) -> int | None:
    return places[0] if len(places) == 1 else None
