"""The verb `grade`: completions that were made elsewhere, scored by a task's own scorer on its prepared test split.

A file holds one completion a line: ``{"id": "tooluse-axolotl-0", "completion": "…"}``. Several lines of one id are
several samples of that question, and give pass@k. Unscored is not wrong, and neither is missing: both are counted, and
the totals also say what the accuracy would be if every missing one were wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from sdft_cli import console, plugins
from sdft_cli.data import dataset, jsonl
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.judge import Judge, judged
from sdft_cli.llm.types import TeacherOptions
from sdft_cli.stats.continual import interval, ratio, wilson
from sdft_cli.stats.pass_at_k import MOST, mean_pass_at
from sdft_cli.types import Example, Task

Row = dict[str, Any]
_WANTED = 'a line is {"id": "…", "completion": "…"}'


def grade(task: str, completions: Path, data: Path, judge: TeacherOptions | None = None) -> Row:
    """Every completion's score (a judge's, if there is one) in the file's order, ``items``, and the ``totals``: JSON.

    Raises `UsageError` with file and line for a line that is no completion, or of an id that the test split has not.
    """
    grader: Task = plugins.task(task, data)
    examples = {e.id: e for e in dataset.held_out(data / task)["test"]}
    rows = _read(completions, examples, data / task)
    items, note = [_scored(grader, examples[row["id"]], row) for row in rows], grader.note
    if judge:
        asked = [{**_asked(examples[row["id"]]), **row, **item} for row, item in zip(rows, items, strict=True)]
        items, note = _judged(grader, asked, Judge(judge, data / ".judge"))
    return {"task": task, "note": note, "totals": totals(items, list(examples)), "items": items}


def _asked(example: Example) -> Row:
    return {"prompt": example.prompt[-1]["content"], "answer": example.answer}


def _judged(task: Task, rows: list[Row], judge: Judge) -> tuple[list[Row], str]:
    """The items with the judge's scores, and what there is to be said about them."""
    if task.rubric is None:
        raise UsageError(f"{task.name} has no rubric for a judge", "leave --judge out: its own scorer decides")
    found = judged(judge, task.name, task.rubric, rows)
    kept = ("id", "value", "extracted", "why", "extra")
    return [{key: row[key] for key in kept if key in row} for row in found], judge.note(found)


def _read(path: Path, examples: dict[str, Example], folder: Path) -> list[Row]:
    """The lines as dicts with ``id`` and ``completion``."""
    rows = []
    for line in jsonl.json_lines(jsonl.read_bytes(path), str(path)):
        where = f"{path}:{line.number}"
        if line.bad:
            raise UsageError(dataset.describe(line.bad), _WANTED)
        row = line.data
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise UsageError(f"{where}: no 'id'", _WANTED)
        if not isinstance(row.get("completion"), str):
            raise UsageError(f"{where}: no text 'completion' of {row['id']!r}", _WANTED)
        if row["id"] not in examples:
            raise UsageError(f"{where}: {folder}/test.jsonl has no row {row['id']!r}", "grade the split it was made on")
        rows.append(row)
    if not rows:
        raise UsageError(f"{path} holds no completion", _WANTED)
    return rows


def _scored(task: Task, example: Example, row: Row) -> Row:
    score = task.grade(row["completion"], example)
    extra = {"extra": score.extra} if score.extra else {}
    return {"id": example.id, "value": score.value, "extracted": score.extracted, "why": score.why, **extra}


def totals(items: Sequence[Row], ids: Sequence[str]) -> Row:
    """Counts, accuracy with its 95 % interval, means of what the scorer scores besides, and pass@k.

    With one completion an id the interval is Wilson's. With several, the accuracy is the mean over questions of their
    shares, and the interval resamples questions: completions of one question are not independent.
    """
    values: dict[str, list[float]] = {}
    for item in items:
        values.setdefault(item["id"], [])
        if item["value"] is not None:
            values[item["id"]].append(item["value"])
    scored = {i: found for i, found in values.items() if found}
    missing = [i for i in ids if i not in values]
    most = max(map(len, values.values()))
    shares = [sum(found) / len(found) for found in scored.values()]
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
        "extra": _extras(items),
        "pass_at": _pass_at(list(scored.values()), most) if several else None,
    }


def _interval(shares: Sequence[float], several: bool) -> tuple[float, float] | None:
    if not shares:
        return None
    if not several:
        return wilson(sum(shares), len(shares))
    mean, draws = ratio(shares, [1.0] * len(shares))
    return interval(draws, mean, least=3 / len(shares), lowest=0.0)


def _extras(items: Sequence[Row]) -> dict[str, float]:
    names = sorted({name for item in items for name in item.get("extra", ())})
    found = {name: [item["extra"][name] for item in items if name in item.get("extra", ())] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def _pass_at(values: Sequence[Sequence[float]], most: int) -> Row:
    """pass@k for k = 1, 2, 4, … as far as the question with the most completions goes."""
    counts = [(len(found), sum(value >= 1 for value in found)) for found in values]
    found: Row = {"values": {}, "intervals": {}, "questions": {}}
    for k in (2**power for power in range(MOST.bit_length())):
        if k <= most and (estimate := mean_pass_at(k, counts)):
            found["values"][str(k)], found["intervals"][str(k)] = estimate
            found["questions"][str(k)] = sum(n >= k for n, _ in counts)
    return found


# --- on the terminal -------------------------------------------------------------------------------------------------


def show(facts: Row) -> None:
    """A line a completion: value, id, what was extracted, and why; then the totals."""
    for item in facts["items"]:
        value = "unscored" if item["value"] is None else f"{item['value']:g}"
        extra = "".join(f"  {name} {found:g}" for name, found in item.get("extra", {}).items())
        extracted = "nothing" if item["extracted"] is None else repr(item["extracted"])
        console.out.print(Text(f"{value:8}  {item['id']}{extra}  {extracted}  {item['why']}"), soft_wrap=True)
    for line in _lines(facts):
        console.out.print(Text(line), soft_wrap=True)


def _lines(facts: Row) -> list[str]:
    t = facts["totals"]
    counts = f"{t['completions']} completions of {t['ids']} questions, {t['unscored']} unscored"
    lines = ["", f"{facts['task']}: accuracy {console.number(t['accuracy'])} {console.span(t['interval'])}  n {t['n']}"]
    lines += [f"  {name} {value:.3f}" for name, value in t["extra"].items()]
    for k, value in (t["pass_at"] or {"values": {}})["values"].items():
        said = f"  pass@{k} {value:.3f} {console.span(t['pass_at']['intervals'][k])}"
        lines.append(f"{said}  {t['pass_at']['questions'][k]} questions")
    if t["missing"]:
        shown = ", ".join(t["missing"][:5]) + (", …" if len(t["missing"]) > 5 else "")
        wrong = console.number(t["if_missing_were_wrong"])
        lines.append(f"  {len(t['missing'])} ids have no completion ({shown}); were they wrong, accuracy {wrong}")
    return [*lines, f"  {counts}", *([f"  {facts['note']}"] if facts["note"] else [])]
