"""The table of a sweep, for the terminal and for Markdown, and the lines below it. Pure: a record in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from sdft_cli.config.sweep_grid import leaf, text_of
from sdft_cli.console import is_change, number, span
from sdft_cli.runs.completeness import differs
from sdft_cli.runs.sweeps import Choice, PointResult, SeedMean, SweepRecord
from sdft_cli.stats.continual import Metric

#: The run metrics that a sweep tables, with their heads.
METRICS: dict[Metric, str] = {"average_accuracy": "avg", "backward_transfer": "BWT", "prior_change": "prior\nchange"}

#: Shares of the completions that a point's model wrote after its last stage.
Ending = Literal["cut", "exact"]


def cells(record: SweepRecord) -> tuple[list[str], list[list[str]]]:
    """Heads (of one or two lines) and text cells of the table."""
    rows = record["points"]
    results = [r["result"] for r in rows if "result" in r]
    keys = list(dict.fromkeys(key for grid in record["grid"].values() for key in grid))
    methods, seeds = len(record["grid"]) > 1, len({r["seed"] for r in rows}) > 1
    stages = max((len(result["stages"]) for result in results), default=0)
    sides = list(dict.fromkeys(name for result in results for name in result["side"]))
    heads = ["", *(["method"] if methods else []), *map(leaf, keys), *(["seed"] if seeds else []), *_compared(record)]
    heads += [*(f"stage\n{k}" for k in range(1, stages + 1)), *(name.replace(" ", "\n", 1) for name in sides)]
    ends = _told(results)
    heads += [*ends, *METRICS.values(), "steps", "sec"]
    table = []
    for row in rows:
        line = ["*" if row["chosen"] else "", *([row["method"]] if methods else [])]
        line += [text_of(row["settings"][k]) if k in row["settings"] else "-" for k in keys]
        line += [str(row["seed"])] if seeds else []
        line += _result_cells(row["result"], sides, ends, record) if "result" in row else ["failed"]
        table.append([*line, *["-"] * (len(heads) - len(line))])
    return heads, table


def _compared(record: SweepRecord) -> list[str]:
    """The heads of what points are compared by: the accuracy, and the loss where it decides."""
    return ["valid", "valid\nloss"] if record.get("criterion") == "loss" else ["valid"]


def _told(results: Sequence[PointResult]) -> list[Ending]:
    """Which shares of the completions after the last stage tell more than the accuracies (`runs.completeness`)."""
    cut = any(result.get("cut") for result in results)
    exact = any(differs(result.get("exact"), result["stages"][-1]) for result in results if result["stages"])
    endings: list[Ending] = ["cut"] if cut else []
    return [*endings, "exact"] if exact else endings


def _result_cells(result: PointResult, sides: list[str], ends: list[Ending], record: SweepRecord) -> list[str]:
    line = [number(result["validation"]), number(result.get("validation_loss"))][: len(_compared(record))]
    line += map(number, result["stages"])
    line += [number(result["side"].get(name)) for name in sides]
    line += [number(result.get(name)) for name in ends]
    line += [number(result["metrics"][key], is_change(key)) for key in METRICS]
    return [*line, str(result["steps"]), f"{result['seconds']:.0f}"]


def lines(record: SweepRecord) -> list[str]:
    """What the table cannot show: why a point was chosen, its metrics over seeds, and what failed."""
    below = [f"rule: {record['rule']}"]
    for method, choice in record["chosen"].items():
        below.append(_choice_line(method, choice))
        below += _all_alike(record, method, choice)
        over = choice["over_seeds"]
        if len(over["seeds"]) > 1:
            means = "; ".join(_mean_text(name, mean) for name, mean in over["metrics"].items())
            below.append(f"over {len(over['seeds'])} seeds (mean, 95 % t-interval): {means}")
    return [*below, *(f"failed: {name}: {reason}" for name, reason in record["failed"].items())]


def _choice_line(method: str, choice: Choice) -> str:
    best = choice["best"]
    if best["standard_error"] is None:
        loss = number(choice.get("validation_loss"))
        return f"chosen for {method}: {_settings_text(choice['settings'])}, validation loss {loss} nats per token"
    return (
        f"chosen for {method}: {_settings_text(choice['settings'])}, validation {number(choice['validation'])} "
        f"(best {number(best['validation'])} at {_settings_text(best['settings'])}, "
        f"standard error {number(best['standard_error'])})"
    )


def _all_alike(record: SweepRecord, method: str, choice: Choice) -> list[str]:
    """A line where no point of a method can be told from its best one: then the choice is that of the rule alone."""
    best, error = choice["best"]["validation"], choice["best"]["standard_error"]
    by_settings: dict[str, list[float | None]] = {}
    for row in (row for row in record["points"] if row["method"] == method and "result" in row):
        by_settings.setdefault(_settings_text(row["settings"]), []).append(row["result"]["validation"])
    known = [sum(v for v in of if v is not None) / len(of) for of in by_settings.values() if None not in of]
    if best is None or error is None or len(known) < 2 or min(known) < best - error - 1e-12:
        return []
    alike = f"all {len(known)} points of {method} are within one standard error of the best"
    return [f"{alike}: more validation rows could tell them apart"]


def _mean_text(name: str, mean: SeedMean) -> str:
    heads = [head for metric, head in METRICS.items() if metric == name]
    title, signed = (heads[0].replace("\n", " "), is_change(name)) if heads else (name, False)
    return f"{title} {number(mean['mean'], signed)} {span(mean['interval'], signed)}"


def _settings_text(settings: Mapping[str, object]) -> str:
    return " ".join(f"{leaf(key)}={text_of(value)}" for key, value in settings.items()) or "its recipe"


def markdown(record: SweepRecord) -> str:
    """The page ``sweep.md``."""
    heads, table = cells(record)
    rows = [[head.replace("\n", " ") for head in heads], ["---"] * len(heads), *table]
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(["# Sweep", "", *text, "", *(f"* {line}" for line in lines(record))]) + "\n"
