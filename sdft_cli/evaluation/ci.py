"""What CI asks of an evaluation: gates from flags, what was measured for them, and the files that tell the verdict.

Forgetting is the mean over earlier tasks of their best accuracy since they were learned, minus the last. Its interval
is put together from two: below it reaches as far as that of minus BWT, above as far as its own bootstrap draws. The
maximum reads high under noise and resampling adds to that, so the draws' lower end would prove forgetting where there
is none; minus BWT has no maximum and is never more than forgetting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from sdft_cli import console
from sdft_cli.errors import UsageError, choose
from sdft_cli.evaluation import comparable, gates
from sdft_cli.evaluation.gates import Gate, Measured
from sdft_cli.runs.folder import write_whole
from sdft_cli.runs.results import RunResult
from sdft_cli.stats import bootstrap, continual

Row = dict[str, Any]
FORGETTING, PRIOR_DROP = "forgetting", "prior drop"
_OF_STAGES = (FORGETTING, PRIOR_DROP)


def gates_of(forgetting: float | None, prior_drop: float | None, accuracies: Sequence[str], rule: str) -> list[Gate]:
    """The gates that ``--max-forgetting``, ``--max-prior-drop`` and ``--min-accuracy NAME=VALUE`` set, to be decided
    by ``rule``."""
    if rule not in gates.RULES:
        raise choose("--gate", rule, gates.RULES)
    found = []
    if forgetting is not None:
        found.append(Gate("--max-forgetting", FORGETTING, _within("--max-forgetting", forgetting)))
    if prior_drop is not None:
        found.append(Gate("--max-prior-drop", PRIOR_DROP, _within("--max-prior-drop", prior_drop)))
    for text in accuracies:
        name, equals, value = text.rpartition("=")
        try:
            least = float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise UsageError(f"--min-accuracy {text}: not of the form TASK=VALUE", "write --min-accuracy tooluse=0.6")
        flag = f"--min-accuracy {name}"
        if any(gate.flag == flag for gate in found):
            raise UsageError(f"{flag} is set twice", "leave one of them out")
        found.append(Gate(flag, f"accuracy of {name}", _within(flag, least), least=True))
    return found


def _within(flag: str, value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise UsageError(
            f"{flag}: {value:g} is not a share between 0 and 1", "accuracies are shares: 2 points are 0.02"
        )
    return value


def check_stages(asked: Sequence[Gate], whole_run: bool) -> None:
    """Refuse gates on a run's stages, before anything is measured, unless its tasks are scored as it scores them."""
    for gate in asked:
        if gate.on in _OF_STAGES and not whole_run:
            raise UsageError(
                f"{gate}: {gate.on} compares the stages of a run, all measured alike",
                "name a run, without settings (--limit, --data, --set, …) that are not its own",
            )


def check_names(asked: Sequence[Gate], names: Sequence[str]) -> None:
    """Refuse gates on tasks and suites that are not among ``names``, those of this evaluation."""
    for gate in asked:
        name = gate.flag.removeprefix("--min-accuracy ")
        if gate.least and name not in names:
            raise UsageError(f"{gate}: {name} is not measured here", f"measured: {', '.join(names) or 'nothing'}")


def measured(gate: Gate, scores: Row, run: RunResult | None) -> Measured:
    """What ``gate`` is about, from the scores of an evaluation or from the run they belong to."""
    if gate.least:
        return _accuracy(gate.flag.removeprefix("--min-accuracy "), scores)
    if run is None:
        return Measured(None, lack="name a run: a single model has no stages to compare")
    if not run.finished:
        lack = f"{run.folder} is at stage {run.last} of {len(run.stages)}: finish it with `sdft train --resume`"
        return Measured(None, lack=lack)
    if unlike := comparable.differences([(f"stage {stage}", settings) for stage, settings in run.settings.items()]):
        return Measured(None, lack=f"the run's stages were not measured alike: {unlike[0]}")
    return forgetting(run) if gate.on == FORGETTING else prior_drop(run)


def _accuracy(name: str, scores: Row) -> Measured:
    suite = scores["suite"] if scores["suite"] and scores["suite"]["name"] == name else None
    summary: Mapping[str, Any] = scores["tasks"].get(name) or suite or {}
    if summary.get("accuracy") is None:
        return Measured(None, lack=f"no row of {name} could be scored")
    return Measured(summary["accuracy"], tuple(summary["interval"]) if summary.get("interval") else None)


def forgetting(run: RunResult) -> Measured:
    """`continual.fall` of a run, with the interval that this file's head explains."""
    if len(set(run.trained)) < 2:
        return Measured(None, lack="a run of one task has nothing earlier to forget")
    value = continual.fall(run.matrix, run.trained)
    if value is None:
        return Measured(
            None, lack="some stage was not evaluated on a task learned before: `sdft train --resume` does it"
        )
    tables = [column.items for column in run.columns.values() if column.items is not None]
    backward = run.metric_intervals["backward_transfer"]
    if backward is None or len(tables) < len(run.columns):
        return Measured(value, lack="the item files beside scores.json are missing")
    least = run.least_widths["backward_transfer"]
    ends = bootstrap.interval(bootstrap.fall(tables, run.trained), value, least, 0.0)
    return Measured(value, (max(0.0, -backward[1]), ends[1]) if ends else None)


def prior_drop(run: RunResult) -> Measured:
    """How far the prior suite fell from base to end; negative if it rose."""
    value, ends = run.metrics["prior_change"], run.metric_intervals["prior_change"]
    if value is None:
        return Measured(None, lack="the run watches no prior suite from its base on: train with --suite")
    lack = "" if ends else "the item files beside scores.json are missing"
    return Measured(-value, (-ends[1], -ends[0]) if ends else None, lack)


def verdict(subject: str, asked: Sequence[Gate], rule: str, scores: Row, run: RunResult | None) -> gates.GateReport:
    """The one verdict of all gates; `UsageError` where one is about what was not measured."""
    return gates.verdict(subject, [(gate, measured(gate, scores, run)) for gate in asked], rule)


def write(found: gates.GateReport, scores: Row, junit: Path | None, markdown: Path | None) -> None:
    """The verdict as the files that were asked for."""
    if junit:
        write_whole(junit, gates.as_junit(found))
    if markdown:
        write_whole(markdown, gates.as_markdown(found, _shown(scores)))


def show(found: gates.GateReport | None) -> None:
    """A line a gate; nothing without gates."""
    if found is None:
        return
    console.out.print(Text(f"gates, decided by the rule {found.rule}:"), soft_wrap=True)
    for outcome in found.outcomes:
        console.out.print(Text(f"  {'pass' if outcome.passed else 'FAIL'}  {outcome}"), soft_wrap=True)


def _shown(scores: Row) -> list[tuple[str, Measured]]:
    """What the Markdown lists below the gates: accuracies, and a run's metrics."""
    suite = scores["suite"]
    summaries = {**scores["tasks"], **({f"suite {suite['name']}": suite} if suite else {})}
    shown = [(name, Measured(s["accuracy"], s["interval"])) for name, s in summaries.items()]
    return shown + [(name.replace("_", " "), Measured(c["value"], c["interval"])) for name, c in _metrics(scores)]


def _metrics(scores: Row) -> list[tuple[str, Row]]:
    return [(name, cell) for name, cell in scores.get("metrics", {}).items() if cell["value"] is not None]
