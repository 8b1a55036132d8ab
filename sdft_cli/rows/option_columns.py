"""Options of a question in columns of their own: A to D, option1 to option4, a right one beside wrong ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sdft_cli.rows.columns import Named

_NUMBERED = re.compile(
    r"(?P<stem>option|opt|op|choice|ending|sol|alternative|candidate|mcanswer|answer|)(?P<at>[a-j]|[0-9]|10)"
)
_WRONG = re.compile(r"(?P<stem>distractor|incorrectanswer|wronganswer|incorrectoption|incorrect|wrong)s?(?P<at>[0-9]?)")
_RIGHT = ("correctanswer", "rightanswer", "correct", "correctoption", "bestanswer", "answer")


def option_columns(names: Sequence[str], squeezed: Callable[[str], str]) -> dict[str, Named]:
    """The columns of the options as role ``choices``, and of the right one as ``answer`` if it is one of them; {} if
    there are none."""
    by_name = {squeezed(name): name for name in names}
    return _numbered(by_name) or _right_and_wrong(by_name)


def _numbered(by_name: dict[str, str]) -> dict[str, Named]:
    series: dict[str, list[str]] = {}
    for name in by_name:
        if match := _NUMBERED.fullmatch(name):
            series.setdefault(match["stem"], []).append(match["at"])
    for stem, found in series.items():
        for row in ("abcdefghij", "0123456789", "123456789"):
            count = next((i for i, at in enumerate(row) if at not in found), len(row))
            if count > 1 and not (stem == "" and row[0] != "a"):
                return {"choices": tuple(by_name[f"{stem}{at}"] for at in row[:count])}
    return {}


def _right_and_wrong(by_name: dict[str, str]) -> dict[str, Named]:
    right = next((by_name[name] for name in _RIGHT if name in by_name), None)
    wrong = sorted(name for name in by_name if _WRONG.fullmatch(name))
    if right is None or not wrong:
        return {}
    return {"choices": (right, *(by_name[name] for name in wrong)), "answer": right}
