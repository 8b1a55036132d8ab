"""A report in sentences: what was measured, what came out, and what that does not show."""

from __future__ import annotations

from sdft_cli.console import is_change, number, pvalue, span
from sdft_cli.reporting.equal_accuracy_tables import sentence
from sdft_cli.reporting.report_json import ReportData, RunReport
from sdft_cli.stats.continual import Metric
from sdft_cli.stats.intervals import overlap

MICRO = (
    "Tasks named micro-… are set in a micro world: invented words and rules, and a very small model. Results there are "
    "evidence about the code and about how the methods work, not about large language models."
)
OVER_ITEMS = (
    "The interval of a single run is a 95 % interval over the test items of its last checkpoint. It does not cover the "
    "variation between training runs, so intervals over items alone do not show that a method is better."
)
HEADLINE: tuple[Metric, ...] = ("average_accuracy", "backward_transfer", "prior_change")
#: Of more runs or groups than this, only the tables report the numbers.
_FEW = 4


def title(report: ReportData) -> str:
    """Which recipes, on which tasks."""
    names, sequences = [group["name"] for group in report["groups"]], _sequences(report)
    recipes = ", ".join(names[:-1]) + f" and {names[-1]}" if 1 < len(names) <= _FEW else names[0]
    recipes = recipes if len(names) <= _FEW else f"{len(names)} recipes"
    return f"{recipes} on {' → '.join(sequences[0])}" if len(sequences) == 1 else f"{recipes} on several task sequences"


def sentences(report: ReportData) -> list[str]:
    """The report in plain words."""
    runs, groups = report["runs"], report["groups"]
    lines = [_measured(report), *_base(report)]
    if len(groups) <= _FEW and any(len(group["seeds"]) > 1 for group in groups):
        lines += _over_seeds(report)
    elif len(runs) <= _FEW:
        lines += [_outcome(run) for run in runs]
    if len(groups) <= _FEW and (equal := sentence(report["equal_accuracy"])):
        lines.append(equal)
    different = runs[0]["group"] != runs[-1]["group"] and runs[0]["metrics_over"] == runs[-1]["metrics_over"]
    if len(runs) == 2 and different:
        lines.append(_overlaps(*runs))
    lines.append(OVER_ITEMS)
    return [*lines, MICRO] if any(task.startswith("micro-") for run in runs for task in run["stages"]) else lines


def warnings(report: ReportData) -> list[str]:
    """What a reader must know before comparing numbers."""
    runs = report["runs"]
    lines = [f"{run['label']}: {note}" for run in runs for note in run["notes"]]
    for key in ("world", "model", "suite"):
        if len({str(run["recipe"].get(key)) for run in runs}) > 1:
            lines.append(f"The runs have different {key}s: their numbers are not comparable.")
    if len(_sequences(report)) > 1:
        lines.append("The runs trained different task sequences: their metrics are not comparable.")
    if len({len(run["rows"]) for run in runs}) > 1:
        lines.append("The runs have reached different stages: their metrics are not comparable.")
    if len(_sequences(report)) == 1 and len({tuple(run["metrics_over"]) for run in runs}) > 1:
        lines.append(
            "The runs' metrics are over different tasks, because other tasks were scored: do not compare them."
        )
    unrecorded = [run["label"] for run in runs if not any(run["settings"].values())]
    if unrecorded and len(runs) > 1:
        missing = "No run recorded" if len(unrecorded) == len(runs) else f"Not recorded for {', '.join(unrecorded)}:"
        lines.append(f"{missing} evaluation settings (chat template, row limit, test rows), so they were not compared.")
    return list(dict.fromkeys(lines))


def _sequences(report: ReportData) -> list[list[str]]:
    """The distinct task sequences."""
    return [list(stages) for stages in dict.fromkeys(tuple(run["stages"]) for run in report["runs"])]


def _base(report: ReportData) -> list[str]:
    """Which model was trained; nothing of the embedded one, which its tasks tell, or where the runs differ."""
    models = {str(run["recipe"].get("model", "")) for run in report["runs"]} - {"", "micro"}
    return [f"The base model is {models.pop().removeprefix('…/')}."] if len(models) == 1 else []


def _measured(report: ReportData) -> str:
    runs, sequences = report["runs"], _sequences(report)
    tasks = f"on {', then '.join(sequences[0])}" if len(sequences) == 1 else "on different task sequences"
    trained = "One model was trained" if len(runs) == 1 else f"{len(runs)} models were trained"
    columns = [pair for run in runs for pair in zip(run["heads"], run["sizes"], strict=True)]
    unscored = dict.fromkeys(task for run in runs for task in run["unscored"])
    sizes = [n for head, n in columns if not _is_suite(head) and head not in unscored]
    items = _items(sizes) + "".join(f"; {task} is not scored" for task in unscored)
    suites = dict.fromkeys(f"{head.removeprefix('prior: ')} ({n} items)" for head, n in columns if _is_suite(head))
    suite = f" and on the prior suite {', '.join(suites)}" if suites else "; no prior suite was tested"
    tested = "It was tested" if len(runs) == 1 else "Each was tested"
    when = "before training and after every stage"
    return f"{trained} {tasks}. {tested} {when} on all of its tasks ({items}){suite}."


def _items(sizes: list[int]) -> str:
    if not sizes:
        return "none is scored"
    low, high = min(sizes), max(sizes)
    return f"{low} items per task" if low == high else f"{low} to {high} items per task"


def _is_suite(head: str) -> bool:
    return head.startswith("prior: ")


def _outcome(run: RunReport) -> str:
    """One run's numbers, with intervals."""
    last = len(run["rows"]) - 1
    trained = set(run["stages"][:last])
    if not trained:
        return f"{run['label']}: only the base model has been tested."
    counted = run["metrics_over"]
    cells = zip(run["heads"], run["rows"][0]["cells"], strict=True)
    base = [cell["value"] for head, cell in cells if head in counted and cell["value"] is not None]
    before = f" ({number(sum(base) / len(base))} before training)" if base and len(base) == len(counted) else ""
    over = f" over {len(counted)} of {len(trained)} tasks" if len(counted) < len(trained) else ""
    accuracy = f"average accuracy{over} {_value(run, 'average_accuracy')}{before}" if counted else "no task was scored"
    if counted and run["metrics"]["average_accuracy"]["value"] is None:
        accuracy = f"average accuracy{over} unknown{before}"
    parts = [f"{run['label']}: {accuracy}", *_unscored_losses(run)]
    if run["metrics"]["backward_transfer"]["value"] is not None:
        parts.append(f"backward transfer {_value(run, 'backward_transfer')}{_if_null(run, 'backward_transfer')}")
    if run["metrics"]["prior_change"]["value"] is not None:
        parts.append(f"change on the prior suite {_value(run, 'prior_change')}{_if_null(run, 'prior_change')}")
    unfinished = "" if run["finished"] else f"Unfinished ({last} of {len(run['stages'])} stages): "
    return unfinished + "; ".join(parts) + "."


def _unscored_losses(run: RunReport) -> list[str]:
    """The losses of the tasks that nothing scored."""
    losses, first, last = run["losses"], run["losses"]["rows"][0]["cells"], run["losses"]["rows"][-1]["cells"]
    ends = [(head, a["value"], b["value"]) for head, a, b in zip(losses["heads"], first, last, strict=True)]
    return [
        f"loss of {head} {number(end)} nats per token ({number(begin)} before training)"
        for head, begin, end in ends
        if head in run["unscored"] and begin is not None and end is not None
    ]


def _value(run: RunReport, metric: Metric) -> str:
    signed, estimate = is_change(metric), run["metrics"][metric]
    return f"{number(estimate['value'], signed)} {span(estimate['interval'], signed)}".strip()


def _if_null(run: RunReport, metric: Metric) -> str:
    interval = run["metrics"][metric]["interval"]
    return " (the interval includes 0)" if interval and interval[0] <= 0 <= interval[1] else ""


def _overlaps(a: RunReport, b: RunReport) -> str:
    """For each headline metric, whether the two intervals overlap."""
    overlapping: list[str] = []
    separate: list[str] = []
    for metric in HEADLINE:
        x, y = (run["metrics"][metric]["interval"] for run in (a, b))
        if x and y:
            (overlapping if overlap(x, y) else separate).append(metric.replace("_", " "))
    parts = [f"do not overlap for {', '.join(separate)}"] if separate else []
    parts += [f"overlap for {', '.join(overlapping)}"] if overlapping else []
    return f"The intervals of {a['label']} and {b['label']} {'; they '.join(parts) or 'are not known'}."


def _over_seeds(report: ReportData) -> list[str]:
    """The seed means of the headline metrics, with the difference where there are two groups."""
    lines, pair = [], report["pair"]
    for metric in HEADLINE:
        values = [(group["name"], group["metrics"][metric]["value"]) for group in report["groups"]]
        if all(value is None for _, value in values):
            continue
        means = ", ".join(f"{name} {number(value, is_change(metric))}" for name, value in values)
        test = pair["tests"][metric] if pair else None
        gap = f"; difference {number(test['value'], True)} {span(test['interval'], True)}".rstrip() if test else ""
        name = metric.replace("_", " ").capitalize()
        lines.append(f"{name}, mean over seeds: {means}{gap}.")
    if pair:
        smallest = pvalue(pair["smallest_p"])
        lines.append(f"With {len(pair['seeds'])} paired seeds no exact sign-flip p can be below {smallest}.")
    return lines
