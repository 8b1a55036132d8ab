"""`sdft grade`: completions that were made elsewhere, scored by a task's own grader on its prepared test split.

A file holds one completion per line: ``{"id": "tooluse-axolotl-0", "completion": "…"}``. Several lines with one id are
several samples of that question, and give pass@k. Unscored is not wrong, and neither is missing: both are counted, and
the totals also report what the accuracy would be if every missing one were wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from rich.text import Text

from sdft_cli import console, plugins
from sdft_cli.data import dataset, jsonl
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.judge import Judge, judgement_of, overruled
from sdft_cli.evaluation.summaries import extra_means
from sdft_cli.grading.exact_match import exact_match
from sdft_cli.llm.types import TeacherOptions
from sdft_cli.messages import question_text
from sdft_cli.runs.completeness import differs
from sdft_cli.runs.records import ItemScore
from sdft_cli.stats.bootstrap import interval, ratio
from sdft_cli.stats.intervals import Interval, of_scores
from sdft_cli.stats.pass_at_k import MOST, mean_pass_at
from sdft_cli.types import Example, Task

_FORMAT = 'each line is {"id": "…", "completion": "…"}'
#: How many missing ids are printed; --json lists them all.
LISTED = 5


class Completion(NamedTuple):
    """A line of the file, and the test row that it answers."""

    example: Example
    text: str


class PassAtPowers(TypedDict):
    """pass@k for k = 1, 2, 4, …, by k as text; ``questions`` are those with at least k scored completions."""

    values: dict[str, float]
    intervals: dict[str, Interval]
    questions: dict[str, int]


class Totals(TypedDict):
    """``n`` counts the questions with a scored completion, ``missing`` lists test rows without any completion, and
    ``exact`` is the mean over questions of their share of exact completions."""

    completions: int
    ids: int
    n: int
    unscored: int
    missing: list[str]
    accuracy: float | None
    interval: Interval | None
    if_missing_were_wrong: float | None
    exact: float | None
    extra: dict[str, float]
    pass_at: PassAtPowers | None


class GradeReport(TypedDict):
    """What `sdft grade` reports; ``items`` are in the file's order."""

    task: str
    note: str
    totals: Totals
    items: list[ItemScore]


def grade(task: str, completions: Path, data: Path, judge: TeacherOptions | None = None) -> GradeReport:
    """Every completion's score (the judge's, if there is one), and the totals.

    Raises `UsageError` with file and line for a line that is no completion, or whose id is not in the test split.
    """
    grader: Task = plugins.task(task, data)
    examples = {e.id: e for e in dataset.held_out(data / task)["test"]}
    answered = _read(completions, examples, data / task)
    items, note = [_score(grader, completion) for completion in answered], grader.note
    if judge:
        items, note = _judged(grader, answered, items, Judge(judge, data / ".judge"))
    return {"task": task, "note": note, "totals": totals(items, list(examples)), "items": items}


def _read(path: Path, examples: Mapping[str, Example], folder: Path) -> list[Completion]:
    completions = []
    for line in jsonl.json_lines(jsonl.read_bytes(path), str(path)):
        where = f"{path}:{line.number}"
        if line.bad:
            raise UsageError(dataset.describe(line.bad), _FORMAT)
        row = line.data
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise UsageError(f"{where}: no 'id'", _FORMAT)
        if not isinstance(row.get("completion"), str):
            raise UsageError(f"{where}: no text 'completion' for {row['id']!r}", _FORMAT)
        if row["id"] not in examples:
            raise UsageError(
                f"{where}: {folder}/test.jsonl has no row {row['id']!r}", "grade completions of that file's prompts"
            )
        completions.append(Completion(examples[row["id"]], row["completion"]))
    if not completions:
        raise UsageError(f"{path} holds no completion", _FORMAT)
    return completions


def _score(task: Task, completion: Completion) -> ItemScore:
    score = task.grade(completion.text, completion.example)
    item: ItemScore = {
        "id": completion.example.id,
        "value": score.value,
        "extracted": score.extracted,
        "why": score.why,
    }
    if score.extra:
        item["extra"] = score.extra
    if (exact := exact_match(completion.text, completion.example)) is not None:
        item["exact"] = exact
    return item


def _judged(
    task: Task, completions: Sequence[Completion], items: Sequence[ItemScore], judge: Judge
) -> tuple[list[ItemScore], str]:
    """The items with the judge's scores, and the note on them."""
    if task.rubric is None:
        raise UsageError(f"{task.name} has no rubric for a judge", "leave --judge out: its own grader decides")
    answers = [judgement_of(question_text(c.example.prompt), c.example.answer, c.text) for c in completions]
    scores = judge.scores(task.name, task.rubric, answers)
    judged = [overruled(item, score) for item, score in zip(items, scores, strict=True)]
    return judged, judge.note(judged)


# --- totals ----------------------------------------------------------------------------------------------------------


def totals(items: Sequence[ItemScore], ids: Sequence[str]) -> Totals:
    """Counts, accuracy with its 95 % interval, means of the grader's second scores, and pass@k.

    With one completion per id the interval is Wilson's. With several, the accuracy is the mean over questions of their
    share of right ones, and the interval resamples questions: completions of one question are not independent.
    """
    values: dict[str, list[float]] = {}
    for item in items:
        values.setdefault(item["id"], [])
        if item["value"] is not None:
            values[item["id"]].append(item["value"])
    scored = [of_id for of_id in values.values() if of_id]
    missing = [i for i in ids if i not in values]
    shares = [sum(of_id) / len(of_id) for of_id in scored]
    several = len(items) > len(values)
    return {
        "completions": len(items),
        "ids": len(values),
        "n": len(scored),
        "unscored": sum(item["value"] is None for item in items),
        "missing": missing,
        "accuracy": sum(shares) / len(shares) if shares else None,
        "interval": _interval(shares, several),
        "if_missing_were_wrong": sum(shares) / (len(shares) + len(missing)) if shares else None,
        "exact": _exact(items),
        "extra": extra_means(items),
        "pass_at": _pass_at(scored, max(map(len, values.values()))) if several else None,
    }


def _exact(items: Sequence[ItemScore]) -> float | None:
    """The mean over questions of their share of exact completions; None where none tells."""
    by_id: dict[str, list[bool]] = {}
    for item in items:
        if "exact" in item:
            by_id.setdefault(item["id"], []).append(item["exact"])
    return sum(sum(flags) / len(flags) for flags in by_id.values()) / len(by_id) if by_id else None


def _interval(shares: Sequence[float], several: bool) -> Interval | None:
    if not shares:
        return None
    if not several:
        return of_scores(shares)
    mean, draws = ratio(shares, [1.0] * len(shares))
    return interval(draws, mean, least=3 / len(shares), lowest=0.0)


def _pass_at(values: Sequence[Sequence[float]], most: int) -> PassAtPowers:
    """Up to the question with the most completions."""
    counts = [(len(of_id), sum(value >= 1 for value in of_id)) for of_id in values]
    powers: PassAtPowers = {"values": {}, "intervals": {}, "questions": {}}
    for k in (2**power for power in range(MOST.bit_length())):
        if k <= most and (estimate := mean_pass_at(k, counts)):
            powers["values"][str(k)], powers["intervals"][str(k)] = estimate
            powers["questions"][str(k)] = sum(n >= k for n, _ in counts)
    return powers


# --- terminal output -------------------------------------------------------------------------------------------------


def show(report: GradeReport) -> None:
    """One line per completion: value, id, what was extracted, and why; then the totals."""
    for item in report["items"]:
        value = "unscored" if item["value"] is None else f"{item['value']:g}"
        extra = "".join(f"  {name} {score:g}" for name, score in item.get("extra", {}).items())
        extracted = "nothing" if item["extracted"] is None else repr(item["extracted"])
        console.out.print(Text(f"{value:8}  {item['id']}{extra}  {extracted}  {item['why']}"), soft_wrap=True)
    for line in _lines(report):
        console.out.print(Text(line), soft_wrap=True)


def _lines(report: GradeReport) -> list[str]:
    t = report["totals"]
    accuracy = f"accuracy {console.number(t['accuracy'])} {console.span(t['interval'])}  n {t['n']}"
    lines = ["", f"{report['task']}: {accuracy}"]
    if differs(t["exact"], t["accuracy"]):
        lines.append(f"  exact {console.number(t['exact'])}: the answer or the demonstration, and nothing else")
    lines += [f"  {name} {value:.3f}" for name, value in t["extra"].items()]
    if pass_at := t["pass_at"]:
        for k, value in pass_at["values"].items():
            estimate = f"{value:.3f} {console.span(pass_at['intervals'][k])}"
            lines.append(f"  pass@{k} {estimate}  {pass_at['questions'][k]} questions")
    if t["missing"]:
        ids = ", ".join(t["missing"][:LISTED]) + (", …" if len(t["missing"]) > LISTED else "")
        accuracy = console.number(t["if_missing_were_wrong"])
        have, were = ("id has", "it were") if len(t["missing"]) == 1 else ("ids have", "they were")
        lines.append(f"  {len(t['missing'])} {have} no completion ({ids}); if {were} wrong, accuracy {accuracy}")
    of = f"{t['ids']} question{'s' * (t['ids'] != 1)}"
    lines.append(f"  {t['completions']} completion{'s' * (t['completions'] != 1)} of {of}, {t['unscored']} unscored")
    return [*lines, f"  {report['note']}"] if report["note"] else lines
