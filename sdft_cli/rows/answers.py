"""The gold answer of a record: a text, several of which any is right, yes or no, a label; and none, where a passage
does not answer the question."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sdft_cli.grading import named_rules
from sdft_cli.rows.layouts import Plan
from sdft_cli.rows.values import as_text, is_missing, parsed
from sdft_cli.types import Json

UNANSWERABLE = "unanswerable"
_FINAL = re.compile(r"^[ \t]*####[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_STATED = re.compile(r"(?:\A|\n)[^\n]*?\banswer is:?[ \t]*([^\n]+?)\.?\s*\Z", re.IGNORECASE)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")


@dataclass(frozen=True, slots=True)
class Gold:
    """What a record says is right.

    ``value`` is a text, a list of texts of which any is right, or JSON as it is; None if it says nothing. ``yes_no``:
    it was a boolean; ``label``: it is one of a set; ``labels``: a list of them, all of which are right together;
    ``unanswerable``: the record says that there is no answer.
    """

    value: Json = None
    yes_no: bool | None = None
    label: bool = False
    labels: tuple[str, ...] = ()
    unanswerable: bool = False

    @property
    def closed(self) -> bool:
        """Whether a missing answer means something."""
        return self.label or self.unanswerable


def gold_answer(value: Json, column: str, plan: Plan) -> Gold:
    """The gold answer in the value of a column; raises `BadRow`."""
    if plan.layout.kind == "label":
        return _label(value, column, plan)
    if value is None or (is_missing(value) and not isinstance(value, str)):
        return Gold()
    listed = parsed(value, "{" if column.lower() != "answers" else "[{")
    if isinstance(listed, dict):
        listed = _of_object(listed)
    as_it_is = isinstance(listed, dict) or (
        isinstance(listed, list) and any(isinstance(v, dict | list) for v in listed)
    )
    if as_it_is or (isinstance(listed, list) and _wants_json(plan)):
        return Gold(listed)
    if isinstance(listed, list):
        texts = list(dict.fromkeys(as_text(each, "answer", column) for each in listed if not is_missing(each)))
        if not texts:
            return Gold(unanswerable=plan.columns.passage is not None)
        return Gold(texts[0] if len(texts) == 1 and isinstance(value, dict) else texts)
    said = as_text(listed, "answer", column)
    truth = (
        {"true": True, "false": False}.get(said.strip().lower())
        if plan.columns.passage is not None or isinstance(value, bool)
        else None
    )
    return Gold(said, yes_no=truth)


def _wants_json(plan: Plan) -> bool:
    """Whether the user's grader compares lists as they are."""
    grader = named_rules.GRADERS.get(plan.columns.grader or "")
    return grader is not None and grader.gold == "json"


def _label(value: Json, column: str, plan: Plan) -> Gold:
    listed = parsed(value, "[")
    if isinstance(listed, list):
        named = tuple(sorted({_name(each, column, plan) for each in listed}))
        return Gold(", ".join(named) or None, label=True, labels=named if len(named) > 1 else ())
    return Gold(None if is_missing(value) else _name(value, column, plan), label=True)


def _name(value: Json, column: str, plan: Plan) -> str:
    said, names = as_text(value, "label", column).strip(), plan.columns.labels
    return names[int(said)] if names and said.isdecimal() and int(said) < len(names) else said


def _of_object(value: dict[str, Json]) -> Json:
    """The texts of SQuAD's ``{text, answer_start}``, of DROP's ``{spans, types}``, of TriviaQA's value and aliases."""
    for name in ("text", "spans", "span", "answers"):
        if name in value:
            return value[name]
    if "value" in value:
        return [value["value"], *(value.get("aliases") or [])]
    return value


def final_answer(said: str) -> str | None:
    """What a worked solution marks as its final answer: after ``####`` (GSM8K), in the last ``\\boxed{}`` (MATH), or
    after "The answer is" in its last line (MetaMath)."""
    if marked := _FINAL.findall(said):
        return str(marked[-1])
    if not (boxes := list(_BOXED.finditer(said))):
        stated = _STATED.search(said)
        return stated[1] if stated else None
    depth, start = 1, boxes[-1].end()
    for at in range(start, len(said)):
        depth += {"{": 1, "}": -1}.get(said[at], 0)
        if not depth:
            return said[start:at].strip() or None
    return None
