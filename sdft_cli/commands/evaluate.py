"""`sdft eval`: a run's final model, or any model, on tasks and suites; for CI, with gates."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sdft_cli.errors import UsageError
from sdft_cli.evaluation.evaluator import Evaluator
from sdft_cli.evaluation.gate_reports import GateSet, Undecided
from sdft_cli.evaluation.gates import GateReport, as_json
from sdft_cli.evaluation.measurement import EvalScores, Measurement
from sdft_cli.evaluation.option_checks import check_options
from sdft_cli.evaluation.plan import EvalPlan
from sdft_cli.evaluation.request import EvalRequest
from sdft_cli.models import base_models
from sdft_cli.reporting.by_stage import stage_metrics
from sdft_cli.runs.evaluations import write_evaluation
from sdft_cli.runs.files import check_place
from sdft_cli.runs.results import RunResult, load_run

NO_GATES = GateSet()


class EvalOutcome(NamedTuple):
    """The scores, and how the gates came out (None without any)."""

    scores: EvalScores
    gates: GateReport | None


def evaluate(request: EvalRequest, gates: GateSet = NO_GATES) -> EvalOutcome:
    """Measure what was asked for, as far as it is not kept already, and decide the gates on it.

    Raises `UsageError` for unknown names, missing data, gates that cannot be decided and a device that is not there,
    and `OSError` for a place that cannot be written to, before a model is loaded. A gate that only the measurement
    turns out undecided is `Undecided`, which has the scores; they are written and kept all the same.
    """
    plan = EvalPlan(request)
    _check_device(plan)
    gates.check(plan)
    check_options(plan)
    for file in (gates.junit, gates.markdown, request.out and request.out / "scores.json"):
        if file:
            check_place(file.parent)
    base_models.name_base_of(request.target.location, request.base, "kl" in request.also)
    gates.check_scorable(plan, _run_of(plan))  # what is broken in a run is found before anything is written
    scores = measure(plan)
    run = _run_of(plan)
    if run:
        add_metrics(scores, run)
    try:
        report = gates.report(plan.target.name, scores, run)
    except UsageError as error:
        raise Undecided(error, scores, request.out) from error
    if report:
        scores["gates"] = as_json(report)
    return EvalOutcome(scores, report)


def _check_device(plan: EvalPlan) -> None:
    """Raise for a device by name that is not there. ``auto`` always is, and gates on stored scores need no torch."""
    if plan.recipe.runtime.device != "auto":
        from sdft_cli.models import pretrained

        pretrained.placement(plan.recipe.runtime)


def measure(plan: EvalPlan) -> EvalScores:
    """All units of ``plan``; also written, with their items, to the folder that ``--out`` names."""
    total, evaluator = Measurement(), Evaluator(plan)
    _judge_run(plan, evaluator)
    for unit in plan.units:
        total.add(evaluator.measure(unit))
    scores: EvalScores = {"tasks": total.summaries(), "suite": total.suite, "settings": total.settings}
    if plan.target.run:
        scores["run"], scores["stage"] = plan.target.name, plan.target.stage.number
    else:
        scores["model"] = plan.target.name
    if plan.request.out:
        write_evaluation(plan.request.out, scores, total.items)
    return scores


def _judge_run(plan: EvalPlan, evaluator: Evaluator) -> None:
    """Where the run's own scores are asked for, with a judge: judge the whole run, every stage by the same one."""
    run, units = plan.target.run, [unit for unit in plan.units if unit.in_run and unit.suite is None]
    if run is None or evaluator.judge is None or not units:
        return
    fresh = [unit for unit in units if plan.kept_in_run(unit.name).find() is None]
    for unit in fresh:
        evaluator.accuracy(unit)
    if plan.request.names_judge or fresh:
        from sdft_cli.evaluation.run_judging import fill

        with run.locked():
            fill(run, plan.recipe, evaluator.judge)


def _run_of(plan: EvalPlan) -> RunResult | None:
    """The run with all its stages, where these scores belong among them."""
    if not plan.covers_run or not any(Path(plan.target.name).glob("evals/*/scores.json")):
        return None
    return load_run(plan.target.name)


def add_metrics(scores: EvalScores, run: RunResult) -> None:
    """Put the run's metrics into ``scores``, with the tasks that they are over."""
    scores["metrics"] = {
        name: {"value": run.metrics[name], "interval": run.metric_intervals[name]} for name in run.metrics
    }
    scores["metrics_over"] = run.counted_tasks
    if notes := run.unscored_notes:
        scores["notes"] = notes
    scores["curves"] = stage_metrics(run)
