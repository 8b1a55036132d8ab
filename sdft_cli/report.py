"""``sdft report``: runs in; one self-contained HTML page, PNG figures, Markdown and JSON out.

Reads run folders only; no model, no network. The page states what was measured with its intervals, and what the
intervals do not cover. Left out: a verdict on which method is better from a single seed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

import sdft_cli
from sdft_cli import findings, metrics
from sdft_cli.console import is_change, number, span
from sdft_cli.errors import UsageError
from sdft_cli.metrics import Interval
from sdft_cli.results import RunResult, labels, load_run

Row = dict[str, Any]
MEANINGS = {
    "average_accuracy": "mean accuracy at the end over the tasks trained",
    "learning_accuracy": "mean accuracy of each task right after the stage that trained it last",
    "backward_transfer": "what earlier tasks gained since they were learned; negative is forgetting",
    "forward_transfer": "what tasks gained over the base before any stage trained them",
    "forgetting": "fall from each earlier task's best stage; its maximum reads high under noise",
    "prior_change": "change of the prior suite from base to end, mean over its skills",
}
MICRO = (
    "Tasks named micro-… come from a micro world: invented words and rules, and a very small model. "
    "What happens there is evidence about the code and the mechanics of the methods, not about large language models."
)
HEADLINE = ("average_accuracy", "backward_transfer", "prior_change")
PER_KIND = 2


def report(runs: list[Path], out: Path) -> Row:
    """Write ``report.html``, ``report.md``, PNG figures and, last, ``report.json`` into ``out``; returns the JSON."""
    if not runs:
        raise UsageError("no run to report on", "name run folders, such as runs/<name>")
    loaded = [load_run(folder) for folder in runs]
    names = labels(loaded)
    facts = gather(loaded, names)
    out.mkdir(parents=True, exist_ok=True)
    figures = _figures(loaded, names, out)
    facts["files"] = ["report.html", "report.md", *(figure["file"] for figure in figures)]
    page = {**facts, "figures": figures, "samples": _samples(loaded, names), "per_kind": PER_KIND}
    (out / "report.html").write_text(_render("report.html.j2", page), encoding="utf-8")
    (out / "report.md").write_text(_render("report.md.j2", page), encoding="utf-8")
    (out / "report.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def gather(runs: Sequence[RunResult], names: Sequence[str]) -> Row:
    """Everything the report says, as JSON."""
    seeds = findings.over_seeds(runs)
    methods = dict.fromkeys(run.method for run in runs)
    return {
        "title": "What was learned, and what was forgotten: " + ", ".join(names if len(names) < 4 else methods),
        "summary": _summary(runs, names, seeds),
        "warnings": _warnings(runs, names),
        "runs": [_run(run, name) for run, name in zip(runs, names, strict=True)],
        "difference": findings.difference(*runs) if len(runs) == 2 else None,
        "seeds": seeds,
        "parts": findings.skills(runs),
        "meanings": MEANINGS,
        "draws": metrics.DRAWS,
        "version": sdft_cli.__version__,
    }


# --- sentences ---------------------------------------------------------------------------------------------------


def _summary(runs: Sequence[RunResult], names: Sequence[str], seeds: Row | None) -> list[str]:
    """Plain language: what was measured, what came out, and what that does not show."""
    sentences = [_measured(runs)]
    if any(task.startswith("micro-") for run in runs for task in run.tasks):
        sentences.append(MICRO)
    if seeds:
        sentences.append(_over_seeds(seeds))
    shown = list(zip(runs, names, strict=True)) if len(runs) <= 4 else []
    sentences += [_outcome(run, name) for run, name in shown]
    if len(runs) == 2 and runs[0].method != runs[1].method:
        sentences.append(_compared(runs, names))
    sentences.append(
        "Intervals of a run are 95 % intervals over test items of its last checkpoint; they do not cover training "
        "again, so by themselves they do not show that a method is better."
    )
    return sentences


def _measured(runs: Sequence[RunResult]) -> str:
    sequences = {tuple(run.stages) for run in runs}
    order = f"on {', then '.join(runs[0].stages)}" if len(sequences) == 1 else "on sequences of tasks that differ"
    who = "One run trained a model" if len(runs) == 1 else f"{len(runs)} runs each trained a model"
    sizes = sorted({run.task_n(task) for run in runs for task in run.tasks})
    sizes_text = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    suites = list(dict.fromkeys(f"{run.suite} ({run.suite_n} items)" for run in runs if run.suite))
    suite = f" and on the prior suite {', '.join(suites)}" if suites else "; no prior suite was tested"
    return f"{who} {order}. Before training and after every stage it was tested on all its tasks " + (
        f"({sizes_text} items a task){suite}."
    )


def _outcome(run: RunResult, name: str) -> str:
    """One run's numbers, with intervals."""
    begun = metrics.seen(run.trained, run.last)
    if not begun:
        return f"{name}: only the base model has been tested."
    base = [value for j in begun if (value := run.matrix[0][j]) is not None]
    before = f", from {number(sum(base) / len(base))} before training" if len(base) == len(begun) else ""
    parts = [f"{name}: average accuracy {_quoted(run, 'average_accuracy')}{before}"]
    if run.metrics["backward_transfer"] is not None:
        parts.append(f"backward transfer {_quoted(run, 'backward_transfer')}{_if_null(run, 'backward_transfer')}")
    if run.metrics["prior_change"] is not None:
        parts.append(f"prior suite {_quoted(run, 'prior_change')}{_if_null(run, 'prior_change')}")
    unfinished = "" if run.finished else f"Unfinished ({run.last} of {len(run.stages)} stages): "
    return unfinished + "; ".join(parts) + "."


def _quoted(run: RunResult, metric: str) -> str:
    signed = is_change(metric)
    return f"{number(run.metrics[metric], signed)} {span(run.metric_intervals[metric], signed)}".strip()


def _if_null(run: RunResult, metric: str) -> str:
    pair = run.metric_intervals[metric]
    return " (the interval includes no change)" if pair and pair[0] <= 0 <= pair[1] else ""


def _compared(runs: Sequence[RunResult], names: Sequence[str]) -> str:
    """For each headline metric, whether the two intervals overlap."""
    verdicts: dict[bool, list[str]] = {True: [], False: []}
    for metric in HEADLINE:
        a, b = (run.metric_intervals[metric] for run in runs)
        if a and b:
            verdicts[metrics.overlap(a, b)].append(metric.replace("_", " "))
    apart = f"do not overlap for {', '.join(verdicts[False])}" if verdicts[False] else ""
    touching = f"overlap for {', '.join(verdicts[True])}" if verdicts[True] else ""
    said = "; they ".join(filter(None, (apart, touching))) or "are missing"
    return f"The intervals of {names[0]} and {names[1]} {said}."


def _over_seeds(seeds: Row) -> str:
    """The seed means of the headline metrics, with the test between two methods where there is one."""
    said = []
    for row in seeds["rows"]:
        if row["metric"] in HEADLINE and row["cells"][0]["value"] is not None:
            signed, named = is_change(row["metric"]), zip(seeds["methods"], row["cells"], strict=True)
            means = ", ".join(f"{method['name']} {number(cell['value'], signed)}" for method, cell in named)
            test = row.get("test")
            tail = f" (difference {number(test['value'], True)} {span(test['interval'], True)})" if test else ""
            said.append(f"{row['metric'].replace('_', ' ')} {means}{tail}")
    least = f" With {seeds['common']} paired seeds no exact sign-flip p can be below {_pvalue(seeds['smallest_p'])}."
    return f"Means over training seeds, with 95 % t-intervals: {'; '.join(said)}.{least if seeds['pair'] else ''}"


def _warnings(runs: Sequence[RunResult], names: Sequence[str]) -> list[str]:
    """What a reader must know before comparing."""
    found = [f"{name}: {note}" for run, name in zip(runs, names, strict=True) for note in run.notes]
    for key, what in (("world", "worlds"), ("model", "models"), ("suite", "suites")):
        if len({str(run.recipe.get(key)) for run in runs}) > 1:
            found.append(f"The runs have different {what}: their numbers do not compare.")
    if len({tuple(run.stages) for run in runs}) > 1:
        found.append("The runs trained different sequences of tasks: their metrics do not compare.")
    if len({run.last for run in runs}) > 1:
        found.append("The runs have come to different stages: their metrics do not compare.")
    return list(dict.fromkeys(found))


# --- tables ------------------------------------------------------------------------------------------------------


def _run(run: RunResult, name: str) -> Row:
    return {
        "label": name,
        "name": run.name,
        "method": run.method,
        "finished": run.finished,
        "seconds": run.seconds,
        "stages": run.stages,
        "heads": [*run.tasks, *([f"prior: {run.suite}"] if run.prior else [])],
        "rows": [_stage_row(run, k) for k in range(len(run.matrix))],
        "metrics": {m: findings.cell(run.metrics[m], run.metric_intervals[m]) for m in metrics.METRICS},
        "changes": findings.changes(run),
        "notes": [*run.notes, *run.remarks],
        "recipe": json.dumps(_portable(run.recipe), indent=1, ensure_ascii=False),
        "environment": json.dumps(_portable(run.environment), indent=1, ensure_ascii=False),
    }


def _stage_row(run: RunResult, k: int) -> Row:
    new = run.trained[k - 1] if k else None
    tasks = zip(run.matrix[k], run.intervals[k], run.counts[k], strict=True)
    cells = [{**findings.cell(value, pair), "n": n, "new": j == new} for j, (value, pair, n) in enumerate(tasks)]
    if run.prior and run.prior_intervals:
        n = sum(part.counts[k] for part in run.parts.values())
        cells.append({**findings.cell(run.prior[k], run.prior_intervals[k]), "n": n, "new": False})
    return {"name": f"{k} {run.stages[k - 1]}" if k else "base", "cells": cells}


def _portable(value: Any) -> Any:
    """A copy in which an absolute path keeps its last part only: a page is made to be passed on."""
    if isinstance(value, Mapping):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    return f"…/{PurePath(value).name}" if isinstance(value, str) and os.path.isabs(value) else value


# --- writing -----------------------------------------------------------------------------------------------------


def _figures(runs: Sequence[RunResult], names: Sequence[str], out: Path) -> list[Row]:
    """Draw the figures, save their PNG files, and return them for the page."""
    from markupsafe import Markup

    from sdft_cli import plots

    drawn = [
        (
            "accuracy",
            "Accuracy while training",
            "A panel a task, and one for the prior suite.",
            plots.accuracy_curves(runs),
        ),
        ("matrix", "The accuracy matrix", "Rows are stages, columns are tasks.", plots.matrix_heat(runs, names)),
        ("training", "Training curves", "Losses of different methods do not compare.", plots.training_curves(runs)),
    ]
    if any(run.prior and run.last for run in runs):
        caption = "A panel a stage: to the right is learning, downwards is forgetting."
        drawn.insert(1, ("prior", "Prior skills against the new task", caption, plots.prior_against_new(runs)))
    figures = []
    for name, title, caption, figure in drawn:
        plots.save(figure, out / f"{name}.png")
        drawing = Markup(plots.svg(figure, title))  # our own drawing: names in it are outlines, not text
        figures.append({"file": f"{name}.png", "title": title, "caption": caption, "svg": drawing})
    return figures


def _samples(runs: Sequence[RunResult], names: Sequence[str]) -> list[Row]:
    """Samples of every run; of many runs, only each method's first."""
    first = {run.method: name for run, name in reversed(list(zip(runs, names, strict=True)))}
    shown = [(run, name) for run, name in zip(runs, names, strict=True) if len(runs) <= 4 or first[run.method] == name]
    return [{"label": name, "groups": findings.samples(run, PER_KIND)} for run, name in shown]


def _render(template: str, page: Row) -> str:
    import jinja2

    source = resources.files("sdft_cli").joinpath(template).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": _number,
        "span": _span,
        "pvalue": _pvalue,
        "score": _score,
        "minus": _minus,
        "is_change": is_change,
        "csp_hash": _csp_hash,
        "plain": _plain,
    }
    return environment.from_string(source).render(page)


def _minus(text: str) -> str:
    """Hyphens before digits as true minus signs; a lone one (no value) as a dash."""
    return "–" if text == "-" else re.sub(r"(?<![\w-])-(?=[\d.])", "−", text)


def _number(value: float | None, signed: bool = False) -> str:
    return _minus(number(value, signed))


def _span(pair: Interval | None, signed: bool = False) -> str:
    return _minus(span(pair, signed))


def _pvalue(p: float | None) -> str:
    return "–" if p is None else ("<0.001" if p < 0.001 else f"{p:.3f}")


def _score(value: float | None) -> str:
    return "unscored" if value is None else {0.0: "wrong", 1.0: "right"}.get(value, number(value))


def _plain(text: object) -> str:
    """Text that Markdown shows as it stands."""
    return re.sub(r"([\\|<>&`*_\[\]])", r"\\\1", str(text))


def _csp_hash(script: str) -> str:
    """The one script that the page's content policy lets run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
