"""What all rows of a task decide together: how indices are counted, which labels there are, how the prompts end.

`finished` makes examples of the readings of single records. Everything that it adds to a prompt is a note for the
reader: the options as lines ``A. …``, and the sentence that says what kind of answer is wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sdft_cli.data.dataset import FILTERED
from sdft_cli.errors import UsageError
from sdft_cli.grading import named_rules
from sdft_cli.messages import Message
from sdft_cli.rows.answers import UNANSWERABLE, final_answer
from sdft_cli.rows.formats import SourceRow
from sdft_cli.rows.options import ASK, LETTERS, Options, already_in, drawn, reading_of_all, rendered
from sdft_cli.rows.readings import OPTIONS_HERE, UNWANTED, Reading
from sdft_cli.types import Dropped, Example

#: More labels than this are not listed in every prompt.
LISTED = 32
#: This many questions whose first option is always the right one were made that way.
_ALWAYS_FIRST = 8
_ASK_UNANSWERABLE = f'If the passage does not answer the question, answer "{UNANSWERABLE}".'
_ASK_YES_NO = "Answer yes or no."


@dataclass
class Finished:
    """Rows with their final prompts and gold answers, those that were left out, notes, the sentences that prompts end
    with, and the grader that the columns speak for."""

    rows: list[SourceRow]
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)
    grader: str | None = None
    #: where the rows are whose demonstration is the worked solution in their column of gold answers
    worked: set[str] = field(default_factory=set)


UNIT_TESTS = 'the rows have unit tests: grader = "code" in --columns runs them on what a model writes, in a sandbox'


#: A step takes the rows with their readings and returns those that stay.
Pair = tuple[SourceRow, Reading]


def finished(rows: Sequence[SourceRow]) -> Finished:
    """The rows, which have their reading, with all that only the whole can decide; raises `UsageError`."""
    done = Finished([row for row in rows if row.reading is None])
    pairs: list[Pair] = [(row, row.reading) for row in rows if row.reading is not None]
    pairs = _wanted(pairs, done)
    kinds: dict[str, list[Pair]] = {"options": [], "labels": [], "text": []}
    for row, reading in pairs:
        kind = "options" if reading.options else "labels" if reading.gold.label else "text"
        kinds[kind].append((row, reading))
    graders = Counter[str]()
    for kind, finish in (("options", _options), ("labels", _labels), ("text", _texts)):
        if kinds[kind]:
            before = len(done.rows)
            graders[finish(kinds[kind], done) or ""] += len(done.rows) - before
    done.grader = next(iter(graders)) or None if len(graders) == 1 else None
    order = {id_: i for i, id_ in enumerate(row.where for row in rows)}
    done.rows.sort(key=lambda row: order[row.where])
    return done


def _wanted(pairs: list[Pair], done: Finished) -> list[Pair]:
    """Without the responses whose label says that they are not wanted; one that is neither true nor false says
    nothing."""
    labels = {str(reading.liked).lower() for _, reading in pairs if reading.liked is not None}
    if not labels:
        return pairs
    if not labels <= {"true", "false", "1", "0", "1.0", "0.0"}:
        done.notes.append("the label beside the responses is not used: it is neither true nor false")
        return pairs
    kept = []
    for row, reading in pairs:
        if str(reading.liked).lower() in ("false", "0", "0.0"):
            column = reading.plan.parts.get("label", "label")
            done.dropped.append(Dropped(row.where, f"{FILTERED}{UNWANTED}", f"{column!r} is {reading.liked}"))
        else:
            kept.append((row, reading))
    return kept


# --- multiple choice ------------------------------------------------------------------------------------------------


def _options(pairs: list[Pair], done: Finished) -> str:
    found = [reading.options for _, reading in pairs if reading.options and not reading.options.shuffled]
    first_index = pairs[0][1].plan.columns.first_index
    how = reading_of_all(found, str(pairs[0][1].plan.columns.answer), first_index) if found else "label"
    placed = [(row, reading, _place(reading.options, how)) for row, reading in pairs if reading.options]
    first = len(found) >= _ALWAYS_FIRST and all(place == 0 for _, _, place in placed)
    drawn_order = first or any(reading.options and reading.options.shuffled for _, reading in pairs)
    for row, reading, place in placed:
        options = reading.options
        assert options is not None  # these rows have some
        if place is None:
            detail = f"{reading.plan.columns.answer!r} is {options.answer[:40]!r}; {len(options.texts)} options"
            done.dropped.append(Dropped(row.where, "the answer is none of the options", detail))
            continue
        if first:
            options = drawn(list(options.texts), place, _question(reading.prompt))
            place = options.gold["label"]
        done.rows.append(_with_options(row, reading, options.texts, place))
    counted = f"; options are counted {how} in the source" if how.startswith("from") else ""
    done.notes.append(f'prompts list the options as lines "A. …", and the gold answer is a letter{counted}')
    _say(ASK, pairs[0][1], done)
    if drawn_order:
        done.notes.append(
            "the right option is always the first in the source, so options are in an order drawn by question"
        )
    return "choice"


def _place(options: Options | None, how: str) -> int | None:
    """The place of the right option under the reading of all rows, or one that is just as sure."""
    if options is None:
        return None
    return next((options.gold[each] for each in (how, "label", "text") if each in options.gold), None)


def _with_options(row: SourceRow, reading: Reading, texts: Sequence[str], place: int) -> SourceRow:
    letter, shown = LETTERS[place], reading.demonstration
    listed = "" if already_in(_question(reading.prompt), texts) else rendered(texts)
    if isinstance(shown, str) and named_rules.grader("choice").grade(shown, letter).value != 1:
        shown = f"{shown.rstrip()}\n\nAnswer: {letter}"
    meta = {**row.example.meta, "choices": list(texts)}
    prompt = asking(reading, ASK, listed)
    return replace(row, example=replace(row.example, prompt=prompt, answer=letter, demonstration=shown, meta=meta))


# --- labels ---------------------------------------------------------------------------------------------------------


def _labels(pairs: list[Pair], done: Finished) -> str | None:
    numbers = all(r.gold.value is None or str(r.gold.value).lstrip("-").isdecimal() for _, r in pairs)
    given: list[Pair] = []
    for row, reading in pairs:
        if reading.gold.value is None or (numbers and reading.gold.value == "-1"):
            detail = f"{reading.plan.columns.answer!r} is {reading.gold.value or 'empty'}"
            done.dropped.append(Dropped(row.where, f"{FILTERED}its label is not given", detail))
        else:
            given.append((row, reading))
    named = {label for _, reading in given for label in reading.gold.labels or [str(reading.gold.value)]}
    several, labels = any(reading.gold.labels for _, reading in given), sorted(named, key=_natural)
    closed = 1 < len(labels) <= max(LISTED, len(given) // 2)
    listed = closed and len(labels) <= LISTED
    ask = _ask_for(labels if listed else [], several) if closed else ""
    for row, reading in given:
        meta = {**row.example.meta, **({"choices": labels} if listed and not several else {})}
        prompt = asking(reading, ask)
        done.rows.append(
            replace(row, example=replace(row.example, prompt=prompt, answer=reading.gold.value, meta=meta))
        )
    if ask:
        _say(ask, given[0][1], done)
    if numbers and labels:
        done.notes.append("labels are numbers; --columns 'labels=[…]' gives their names, from 0")
    return _known("label", "exact") if closed else None


def _ask_for(labels: Sequence[str], several: bool) -> str:
    """The sentence that asks for a label out of a list, if it is given, or for several of them in its order."""
    if several:
        return f"Answer with all that apply, in alphabetical order, separated by commas{_colon(labels)}."
    return f"Answer with one of{_colon(labels)}." if labels else "Answer with the label."


def _colon(labels: Sequence[str]) -> str:
    return f": {', '.join(labels)}" if labels else ""


def _known(*graders: str) -> str | None:
    """The first of these graders that there is, and that can run here."""
    return next((name for name in graders if name in named_rules.GRADERS and _is_ready(name)), None)


def _is_ready(name: str) -> bool:
    ready = named_rules.GRADERS[name].ready
    try:
        if ready:
            ready()
    except UsageError:  # an extra is not installed
        return False
    return True


def _natural(label: str) -> tuple[int, str]:
    return (int(label), "") if label.isdecimal() else (10**9, label)


def _say(ask: str, reading: Reading, done: Finished) -> None:
    if not reading.plan.columns.template:
        done.asks.append(ask)
        done.notes.append(f"prompts end with {_short(ask)!r}; with --columns template=… they are yours alone")


def _short(text: str) -> str:
    return text if len(text) <= 90 else text[:89] + "…"


# --- texts ----------------------------------------------------------------------------------------------------------


def _texts(pairs: list[Pair], done: Finished) -> str | None:
    """Answers in words: yes and no of booleans, the final answers of worked solutions, questions without an answer."""
    golds = [reading.gold for _, reading in pairs]
    yes_no = bool(golds) and all(gold.yes_no is not None for gold in golds)
    yes_no = yes_no and all(reading.plan.columns.passage for _, reading in pairs)
    open_ended = any(gold.unanswerable for gold in golds)
    finals = None if yes_no or open_ended else _finals([reading for _, reading in pairs], done)
    kinds = {reading.kind for _, reading in pairs}
    asks = {id(reading): reading.plan.layout.ask for _, reading in pairs if reading.plan.layout.ask}
    common = _ASK_YES_NO if yes_no else _ASK_UNANSWERABLE if open_ended else None
    for i, (row, reading) in enumerate(pairs):
        example = row.example
        if ask := common or asks.get(id(reading)):
            example = replace(example, prompt=asking(reading, ask))
        if yes_no:
            answer = "yes" if reading.gold.yes_no else "no"
            example = replace(example, answer=answer, meta={**example.meta, "choices": ["yes", "no"]})
        elif reading.gold.unanswerable:
            example = replace(example, answer=UNANSWERABLE)
        elif finals:
            example = _worked(example, reading, finals[i], row.where, done)
        done.rows.append(replace(row, example=example))
    for each in dict.fromkeys([common] if common else asks.values()):
        _say(str(each), pairs[0][1], done)
    if open_ended:
        count = sum(gold.unanswerable for gold in golds)
        done.notes.append(f"{count} questions have no answer in their passage: their gold answer is {UNANSWERABLE!r}")
    kind = kinds.pop() if len(kinds) == 1 else "text"
    graders = {"sql": "sql", "calls": "tool-calls", "code": "judge"}  # code runs only where the user says so
    if kind == "code" and pairs[0][1].plan.columns.grader is None:
        done.notes.append(UNIT_TESTS)
    named = _known("yes-no", "exact") if yes_no else graders.get(kind)
    if finals and _is_mathematics(pairs):
        named = "math"
    return _known(named) if named else None


def _is_mathematics(pairs: list[Pair]) -> bool:
    """Whether final answers stand in LaTeX's boxes."""
    return all("\\boxed" in _solution(reading) or "\\fbox" in _solution(reading) for _, reading in pairs)


def _finals(readings: list[Reading], done: Finished) -> list[str] | None:
    """The final answer of every solution, where the source has solutions and no column of final answers."""
    solutions = [_solution(reading) for reading in readings]
    if not all(solutions):
        return None
    found = [final_answer(solution) for solution in solutions]
    if any(final is None or len(final) > 200 for final in found):
        return None
    if all(final == solution.strip() for final, solution in zip(found, solutions, strict=True)):
        return None
    done.notes.append(
        "gold answers are the final ones of the solutions: after ####, in the last \\boxed{}, or after 'the answer is'"
    )
    return [str(final) for final in found]


def _solution(reading: Reading) -> str:
    """The text that a final answer is in: the answer, or the demonstration where there is none."""
    value = reading.gold.value
    if value is None:
        return reading.demonstration if isinstance(reading.demonstration, str) else ""
    return value if isinstance(value, str) and reading.demonstration is None else ""


def _worked(example: Example, reading: Reading, final: str, where: str, done: Finished) -> Example:
    if reading.demonstration is not None:
        return replace(example, answer=final)
    done.worked.add(where)
    return replace(example, answer=final, demonstration=str(reading.gold.value))


def asking(reading: Reading, ask: str, listed: str = "") -> list[Message]:
    """The prompt with the options ``listed``, where a template has a place for them or at its end, and the sentence
    ``ask``. A user's template says everything itself, so that sentence is left out."""
    prompt = reading.prompt
    at = max(i for i, message in enumerate(prompt) if message["role"] == "user")
    content = prompt[at]["content"].rstrip()
    if OPTIONS_HERE in content:
        content, listed = content.replace(OPTIONS_HERE, listed), ""
    ask = "" if reading.plan.columns.template else ask
    content = "\n\n".join([content, *filter(None, (listed, ask))])
    return [*prompt[:at], {**prompt[at], "content": content}, *prompt[at + 1 :]]


def _question(prompt: list[Message]) -> str:
    return next(message["content"] for message in reversed(prompt) if message["role"] == "user")


def without(asks: Sequence[str]) -> Callable[[Example], str]:
    """What a row asks, without the sentences that all prompts end with: rows are compared by that."""

    def question(example: Example) -> str:
        text = "\n".join(message["content"] for message in example.prompt)
        for ask in asks:
            text = text.removesuffix(f"\n\n{ask}")
        return text

    return question
