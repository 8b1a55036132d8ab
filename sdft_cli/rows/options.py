"""Multiple choice: the options of a record, what its answer may mean, and both as prompt and gold letter.

Options come as a list, as ``{"text": [...], "label": [...]}``, as ``{"A": ...}``, as objects with a label and a text,
as the text of one of these, or in columns of their own. An answer is a letter, a label, the text of an option, or an
index. An index may count from 0 or from 1, and a number may be an option's text: which it is, all rows of a task
decide together (`reading_of_all`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdft_cli.errors import UsageError
from sdft_cli.rows.formats import BadRow, LeftOut
from sdft_cli.rows.values import as_text, is_missing, parsed
from sdft_cli.types import Json

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ASK = "Answer with the letter of the right option."
#: How an answer may be read, the surest first.
READINGS = ("label", "text", "from 0", "from 1")
_LABELLED = re.compile(r"\s*\(?([A-Za-z]|\d{1,2})\s*[).:]\s*(.*)", re.DOTALL)
_IN_LINE = re.compile(r"(?:\A|[\s,;\n])\(?([A-Za-z])\s*[).:]\s*")


@dataclass(frozen=True, slots=True)
class Options:
    """The ``texts`` of a question's options, and the place of the right one under each reading of `READINGS` that
    finds it. ``answer`` is what the record says, ``shuffled`` tells that its order says nothing."""

    texts: tuple[str, ...]
    gold: dict[str, int]
    answer: str
    shuffled: bool = False


def options_of(value: Json, column: str) -> tuple[list[str], list[str], list[int] | None]:
    """The options, their labels (or none), and, where the options say which is right, a 1 for each that is."""
    value = parsed(value)
    if isinstance(value, str):
        value = _in_text(value, column)
    if isinstance(value, dict):
        return _of_object(value, column)
    if not isinstance(value, list):
        raise BadRow("options are not a list", f"field {column!r} is {type(value).__name__}")
    if value and all(isinstance(each, dict) for each in value):
        return _of_objects(value, column)
    labelled = [_LABELLED.fullmatch(each) if isinstance(each, str) else None for each in value]
    letters = [match[1].upper() if match else "" for match in labelled]
    if value and letters == list(LETTERS[: len(value)]):
        return [match[2] for match in labelled if match], letters, None
    return _texts(value, column), [], None


def _of_object(value: dict[str, Json], column: str) -> tuple[list[str], list[str], list[int] | None]:
    by_name = {name.lower(): each for name, each in value.items()}
    listed = next((by_name[name] for name in ("text", "texts", "choices", "options") if name in by_name), None)
    if isinstance(listed, list):
        labels: Json = next((by_name[name] for name in ("label", "labels", "key") if name in by_name), [])
        texts = _texts(listed, column)
        if not isinstance(labels, list) or (labels and len(labels) < len(texts)):
            raise BadRow("malformed options", f"field {column!r} needs as many texts as labels")
        if labels and all(isinstance(label, int) and label in (0, 1) for label in labels):
            return texts, [], [int(label) for label in labels]
        return texts, [as_text(label, "label", column) for label in labels[: len(texts)]], None
    if value and all(isinstance(each, int) and each in (0, 1) for each in value.values()):
        return list(value), [], [int(each) for each in value.values()]
    kept = {label: each for label, each in value.items() if not is_missing(each)}  # null where another row has more
    return _texts(list(kept.values()), column), list(kept), None


def _of_objects(value: list[dict[str, Json]], column: str) -> tuple[list[str], list[str], list[int] | None]:
    names = ("text", "option", "choice", "value", "content", "answer")
    texts = [next((each[name] for name in names if name in each), None) for each in value]
    labels = [next((each[name] for name in ("label", "key", "id", "letter") if name in each), None) for each in value]
    said = [
        next((each[name] for name in ("correct", "is_correct", "isCorrect") if name in each), None) for each in value
    ]
    right = [each if isinstance(each, bool | int) else None for each in said]
    marked = [int(each) for each in right if each is not None]
    known = [] if any(label is None for label in labels) else [as_text(label, "label", column) for label in labels]
    return _texts(texts, column), known, marked if len(marked) == len(value) else None


def _in_text(written: str, column: str) -> list[str]:
    """Options in one text: ``A) 21, B) 22``, lines, or parts between bars."""
    found = list(_IN_LINE.finditer(written))
    letters = [match[1].upper() for match in found]
    if len(found) > 1 and letters == list(LETTERS[: len(found)]):
        ends = [*(match.start() for match in found[1:]), len(written)]
        return [written[match.end() : end].strip(" ,;\n\t") for match, end in zip(found, ends, strict=True)]
    for between in ("\n", "|"):
        if len(parts := [part for part in written.split(between) if part.strip()]) > 1:
            return [part.strip() for part in parts]
    raise BadRow("options are not a list", f"field {column!r} is the text {written[:40]!r}")


def _texts(value: Sequence[Json], column: str) -> list[str]:
    given = list(value)
    while given and is_missing(given[-1]):
        given.pop()  # columns such as E that some questions do not fill
    if any(is_missing(each) for each in given):
        raise BadRow(
            "empty option", f"field {column!r}, option {next(i for i, v in enumerate(given) if is_missing(v)) + 1}"
        )
    if not 2 <= len(given) <= len(LETTERS):
        raise BadRow("not two to 26 options", f"field {column!r} has {len(given)}")
    return [as_text(each, "option", column).strip() for each in given]


# --- which is right -------------------------------------------------------------------------------------------------


def gold_of(answer: Json, texts: Sequence[str], labels: Sequence[str], column: str) -> dict[str, int]:
    """The place of the right option under each reading that finds one; raises `LeftOut` where no answer is given, as in
    published test sets."""
    answer = parsed(answer, "[")
    if isinstance(answer, list):
        answer = _of_list(answer, column)
    if is_missing(answer) or (not isinstance(answer, bool) and str(answer).strip() in ("-1", "-1.0")):
        raise LeftOut("its answer is not given", f"field {column!r} is {answer!r}")
    said = as_text(answer, "answer", column).strip()
    gold: dict[str, int] = {}
    by_text = _by_text(said, texts)
    by_label = _by_label(said, texts, labels)
    if by_label is not None and (labels or by_text is None):  # an option may itself be a letter
        gold["label"] = by_label
    if by_text is not None:
        gold["text"] = by_text
    if said.isdecimal() and len(said) < 4:
        gold |= {f"from {base}": int(said) - base for base in (0, 1) if 0 <= int(said) - base < len(texts)}
    return gold


def _of_list(answer: list[Json], column: str) -> Json:
    if len(answer) == 1:
        return answer[0]
    if answer and set(map(str, answer)) <= {"0", "1"} and sum(str(each) == "1" for each in answer) == 1:
        return [str(each) for each in answer].index("1")
    raise BadRow("not one answer", f"field {column!r} is {answer!r}"[:80])


def _by_label(said: str, texts: Sequence[str], labels: Sequence[str]) -> int | None:
    """The option with this label: the record's own, else a letter, alone or before the option's text."""
    plain = said.strip("().: \t").upper()
    known = [label.strip("().: \t").upper() for label in labels] or list(LETTERS[: len(texts)])
    if plain in known:
        return known.index(plain)
    match = _LABELLED.fullmatch(said)
    if match and match[1].upper() in known and _plain(match[2]) == _plain(texts[known.index(match[1].upper())]):
        return known.index(match[1].upper())
    return None


def _by_text(said: str, texts: Sequence[str]) -> int | None:
    places = [i for i, text in enumerate(texts) if _plain(text) == _plain(said)]
    return places[0] if len(places) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(" .").casefold()


def reading_of_all(rows: Iterable[Options], column: str, first_index: int | None) -> str:
    """The reading of `READINGS` under which the fewest rows have no answer; `UsageError` if it could be either of two
    that disagree."""
    rows = list(rows)
    if first_index is not None:
        return f"from {first_index}"
    found = {reading: sum(reading in row.gold for row in rows) for reading in READINGS}
    best = max(found.values(), default=0)
    able = [reading for reading in READINGS if found[reading] == best]
    if able[0] in ("label", "text") or len(able) == 1 or not best:
        return able[0]
    said = sorted({row.answer for row in rows if row.gold})
    raise UsageError(
        f"column {column!r} holds the numbers {', '.join(said[:6])} of options, and nothing tells whether they count "
        "from 0 or from 1",
        "say --columns first_index=0, or 1",
    )


def rendered(texts: Sequence[str]) -> str:
    """``A. …``, one option a line."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))


def already_in(question: str, texts: Sequence[str]) -> bool:
    """Whether a question lists its options itself, each after its letter."""
    return all(
        re.search(rf"(?<!\w)\(?{letter}\s*[).:]\s*{re.escape(text)}", question)
        for letter, text in zip(LETTERS, texts, strict=False)
    )


def drawn(texts: list[str], right: int, question: str) -> Options:
    """The options in an order that depends on the question alone, so that it stays when rows are added."""
    order = sorted(
        range(len(texts)), key=lambda i: hashlib.sha256(f"{question}/{texts[i]}".encode("utf-8", "replace")).digest()
    )
    return Options(tuple(texts[i] for i in order), {"label": order.index(right)}, texts[right], shuffled=True)
