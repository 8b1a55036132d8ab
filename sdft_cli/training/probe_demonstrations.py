"""How far the demonstrations are from what the student writes by itself: their likelihood under it, and their lengths.

A demonstration that the student finds as likely as its own completions teaches little and moves little. One that it
finds far less likely moves the model far when it is trained on directly (SFT), which is where forgetting comes from.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdft_cli.evaluation import validation_loss
from sdft_cli.models.batching import Row
from sdft_cli.runs.token_records import MeanValue
from sdft_cli.stats import bootstrap
from sdft_cli.training.cost_estimates import percentiles
from sdft_cli.training.probe_record import Surprise, WrittenLengths
from sdft_cli.training.probe_subject import Subject
from sdft_cli.types import Rollout


def measure(subject: Subject, greedy: Sequence[Rollout]) -> tuple[Surprise, WrittenLengths]:
    """The two losses, the second on the student's ``greedy`` completions, and the demonstrations' lengths."""
    rows = subject.demonstrations
    own = [Row(each.prompt, r.ids, [1.0] * len(r.ids)) for each, r in zip(subject.rows, greedy, strict=True) if r.ids]
    lengths: WrittenLengths = {"tokens": percentiles([len(row.completion) for row in rows]), "ended": None}
    return {"demonstrations": _loss(subject, rows), "own": _loss(subject, own)}, lengths


def _loss(subject: Subject, rows: Sequence[Row]) -> MeanValue | None:
    if not rows:
        return None
    measured = validation_loss.of_rows(subject.policy, rows, subject.recipe.train.micro_batch_budget)
    sums, counts = zip(*measured, strict=True)
    value, draws = bootstrap.ratio(sums, counts, seed=subject.seed)
    interval = bootstrap.interval(draws, value, lowest=0.0, highest=float("inf")) if len(sums) > 1 else None
    return {"value": value, "interval": interval}
