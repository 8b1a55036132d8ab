"""Gates for CI: set by flags, decided on what was measured, and written to the files that CI servers read.

Forgetting is the mean over earlier tasks of their best accuracy since they were learned, minus the last one. Its
interval has its lower end from minus BWT and its upper end from the bootstrap of forgetting itself. The maximum reads
high under noise and resampling adds to that, so the bootstrap's lower end would prove forgetting where there is none;
minus BWT has no maximum and is never more than forgetting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from sdft_cli import console
from sdft_cli.errors import UsageError, choose
from sdft_cli.evaluation import comparable, gates
from sdft_cli.evaluation.gates import Gate, GateReport, Interval, Measured
from sdft_cli.evaluation.measurement import EvalScores
from sdft_cli.evaluation.scorable import HINT, is_judged, lack_of_scores
from sdft_cli.runs.files import write_whole
from sdft_cli.runs.records import Summary
from sdft_cli.runs.results import RunResult
from sdft_cli.stats import bootstrap, continual
from sdft_cli.types import Suite

if TYPE_CHECKING:
    from sdft_cli.evaluation.plan import EvalPlan

FORGETTING, PRIOR_DROP = "forgetting", "prior drop"
_OF_STAGES = (FORGETTING, PRIOR_DROP)
_ACCURACY = "--min-accuracy"
_ONE_TASK = "a run of one task has nothing earlier to forget"
_NO_SUITE = "the run has no prior suite measured from its base on: train with --suite"


@dataclass(frozen=True)
class GateSet:
    """The gates of one evaluation, the rule that decides them (`gates.RULES`), and the files to report to."""

    gates: tuple[Gate, ...] = ()
    rule: str = "point"
    junit: Path | None = None
    markdown: Path | None = None

    def check(self, plan: EvalPlan) -> None:
        """Refuse gates that ``plan`` cannot decide, before anything is measured."""
        for gate in self.gates:
            if gate.on in _OF_STAGES and not plan.covers_run:
                raise UsageError(
                    f"{gate}: {gate.on} compares the stages of a run, so all must be measured under the same settings",
                    "name a run, and leave out --limit, --data, --set, … that differ from its own settings",
                )
        for gate in self.gates:
            if gate.least and _subject(gate) not in plan.names:
                measured = ", ".join(plan.names) or "nothing"
                raise UsageError(f"{gate}: {_subject(gate)} is not measured here", f"measured: {measured}")

    def check_scorable(self, plan: EvalPlan, run: RunResult | None) -> None:
        """Refuse gates that a run has not the stages for, and gates on what cannot be scored, before a model is loaded.
        ``run`` is the plan's, where it has one."""
        judged = is_judged(plan.recipe)
        for gate in self.gates:
            if run and gate.on in _OF_STAGES and (lack := _lack_of_stages(gate, plan, run)):
                raise UsageError(f"{gate}: {gate.on} cannot be measured", lack)
            for name in _watched(gate, plan):
                if reason := _lack(name, plan, run, judged):
                    raise UsageError(f"{gate}: {name} cannot be scored: {reason}", HINT)

    def report(self, subject: str, scores: EvalScores, run: RunResult | None) -> GateReport | None:
        """The outcome of all gates, also as files; None without any. `UsageError` for what was not measured."""
        if not self.gates:
            return None
        report = gates.decide(subject, [(gate, measured(gate, scores, run)) for gate in self.gates], self.rule)
        if self.junit:
            write_whole(self.junit, gates.as_junit(report))
        if self.markdown:
            write_whole(self.markdown, gates.as_markdown(report, _listed(scores)))
        return report


def gates_of(
    forgetting: float | None,
    prior_drop: float | None,
    accuracies: Sequence[str],
    rule: str | None = None,
    junit: Path | None = None,
    markdown: Path | None = None,
) -> GateSet:
    """The gates that ``--max-forgetting``, ``--max-prior-drop`` and ``--min-accuracy NAME=VALUE`` set."""
    if rule is not None and rule not in gates.RULES:
        raise choose("--gate", rule, gates.RULES)
    chosen: list[Gate] = []
    if forgetting is not None:
        chosen.append(Gate("--max-forgetting", FORGETTING, _share("--max-forgetting", forgetting)))
    if prior_drop is not None:
        chosen.append(Gate("--max-prior-drop", PRIOR_DROP, _share("--max-prior-drop", prior_drop)))
    for text in accuracies:
        gate = _accuracy_gate(text)
        if any(other.flag == gate.flag for other in chosen):
            raise UsageError(f"{gate.flag} is set twice", "leave one of them out")
        chosen.append(gate)
    if (junit or markdown) and not chosen:
        raise UsageError("--junit and --markdown report on gates, and none is set", "add --max-forgetting 0.02, …")
    if rule and not chosen:
        raise UsageError(f"--gate {rule} is how gates are decided, and none is set", "add --max-forgetting 0.02, …")
    return GateSet(tuple(chosen), rule or "point", junit, markdown)


def _accuracy_gate(text: str) -> Gate:
    name, _, value = text.rpartition("=")
    try:
        least = float(value)
    except ValueError:
        name = ""
    if not name:
        raise UsageError(f"{_ACCURACY} {text}: not of the form TASK=VALUE", f"write {_ACCURACY} tooluse=0.6")
    flag = f"{_ACCURACY} {name}"
    return Gate(flag, f"accuracy of {name}", _share(flag, least), least=True)


def _subject(gate: Gate) -> str:
    """The task or suite that an accuracy gate is about."""
    return gate.flag.removeprefix(f"{_ACCURACY} ")


def _share(flag: str, value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise UsageError(
            f"{flag}: {value:g} is not a fraction between 0 and 1", "accuracies are fractions: 2 points are 0.02"
        )
    return value


def _lack_of_stages(gate: Gate, plan: EvalPlan, run: RunResult) -> str:
    """What a run lacks to compare its stages, whatever is measured of its last one; empty where it lacks nothing."""
    if plan.target.stage.number < len(run.stages):
        return _unfinished(run)
    if gate.on == FORGETTING:
        return _ONE_TASK if len(set(run.stages)) < 2 else ""
    return "" if run.suite or plan.recipe.suite else _NO_SUITE


def _unfinished(run: RunResult) -> str:
    return f"{run.folder} is at stage {run.last} of {len(run.stages)}: finish it with `sdft train --resume`"


def _watched(gate: Gate, plan: EvalPlan) -> list[str]:
    """The tasks or suites whose scores a gate needs: for forgetting, all tasks that are learned before the last."""
    if gate.least:
        return [_subject(gate)]
    if gate.on == FORGETTING:
        return [task for task in dict.fromkeys(plan.recipe.tasks) if task != plan.recipe.tasks[-1]]
    return [plan.recipe.suite] if plan.recipe.suite else []


def _lack(name: str, plan: EvalPlan, run: RunResult | None, judged: bool) -> str:
    """Why a task or suite cannot be scored; empty where it can or has been, or where only measuring will tell."""
    if run and name in run.columns and run.columns[name].cells[-1] is not None:
        return ""
    unit = next((unit for unit in plan.units if unit.title == name), None)
    if unit and isinstance(unit.suite, Suite):
        return lack_of_scores(unit.suite, [item for part in unit.suite.parts().values() for item in part])
    if unit and unit.task:
        return lack_of_scores(unit.task, unit.splits["test"][: plan.settings.limit], judged)
    return run.unscored.get(name, "") if run and not judged else ""


class Undecided(UsageError):
    """A gate that could not be decided on what was measured; ``scores`` are that."""

    def __init__(self, error: UsageError, scores: EvalScores, out: Path | None):
        kept = f"; the scores are in {out}" if out else ""
        super().__init__(f"{error.message}{kept}", error.hint)
        self.scores = scores


# --- what was measured -----------------------------------------------------------------------------------------------


def measured(gate: Gate, scores: EvalScores, run: RunResult | None) -> Measured:
    """The value that ``gate`` is about, from an evaluation's scores or from the run they belong to."""
    if gate.least:
        return _accuracy(_subject(gate), scores)
    if run is None:
        return Measured(None, lack="name a run: a single model has no stages to compare")
    if not run.finished:
        return Measured(None, lack=_unfinished(run))
    if unlike := comparable.differences([(f"stage {stage}", settings) for stage, settings in run.settings.items()]):
        return Measured(None, lack=f"the run's stages are not comparable: {unlike[0]}")
    return forgetting(run) if gate.on == FORGETTING else prior_drop(run)


def _accuracy(name: str, scores: EvalScores) -> Measured:
    suite = scores["suite"]
    summary: Summary | None = scores["tasks"].get(name) or (suite if suite and suite["name"] == name else None)
    if summary is None or summary["accuracy"] is None:
        left = "its answers are not judged yet, which `sdft eval RUN --judge MODEL` does"
        waits = summary is not None and "not judged yet" in summary["note"]
        return Measured(None, lack=left if waits else f"no row of {name} could be scored")
    return Measured(summary["accuracy"], _ends(summary["interval"]))


def _ends(interval: Sequence[float] | None) -> Interval | None:
    return (interval[0], interval[1]) if interval else None


def forgetting(run: RunResult) -> Measured:
    """`continual.fall` of a run, with the interval that the head of this file explains."""
    if len(set(run.trained)) < 2:
        return Measured(None, lack=_ONE_TASK)
    for task in (run.tasks[j] for j in continual.earlier(run.trained, run.last)):
        if reason := run.unscored.get(task):
            return Measured(None, lack=f"{task} is not scored: {reason}; {HINT}")
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
        return Measured(None, lack=_NO_SUITE)
    lack = "" if ends else "the item files beside scores.json are missing"
    return Measured(-value, (-ends[1], -ends[0]) if ends else None, lack)


# --- the report ------------------------------------------------------------------------------------------------------


def show(report: GateReport) -> None:
    """One line per gate."""
    console.out.print(Text(f"gates, decided by the rule {report.rule}:"), soft_wrap=True)
    for outcome in report.outcomes:
        console.out.print(Text(f"  {'pass' if outcome.passed else 'FAIL'}  {outcome}"), soft_wrap=True)


def _listed(scores: EvalScores) -> list[tuple[str, Measured]]:
    """What the Markdown lists below the gates: accuracies, and a run's metrics."""
    suite = scores["suite"]
    summaries: Mapping[str, Summary] = {**scores["tasks"], **({f"suite {suite['name']}": suite} if suite else {})}
    accuracies = [(name, Measured(s["accuracy"], _ends(s["interval"]))) for name, s in summaries.items()]
    metrics = [
        (name.replace("_", " "), Measured(metric["value"], metric["interval"]))
        for name, metric in scores.get("metrics", {}).items()
        if metric["value"] is not None
    ]
    return accuracies + metrics
