"""The trained points of a sweep, and the choice between them: by validation accuracy or, where not every point has one,
by validation loss. Points are never compared by both."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sdft_cli.config.sweep_grid import Point
from sdft_cli.runs import metrics
from sdft_cli.runs.results import RunResult
from sdft_cli.runs.sweeps import TABLED, BestPoint, Choice, Criterion, OverSeeds, PointResult, SeedMean
from sdft_cli.stats import selection
from sdft_cli.stats.across_seeds import seed_mean
from sdft_cli.stats.selection import Candidate, LossCandidate


@dataclass(frozen=True)
class TrainedPoint:
    """A point whose run is finished."""

    point: Point
    run: RunResult

    @property
    def validation(self) -> tuple[float, int] | None:
        """Validation accuracy and the items behind it; None where a stage has no rows that could be scored."""
        return metrics.validation(self.run.evals, len(self.run.stages), self.run.endings)

    @property
    def loss(self) -> float | None:
        """Validation loss in nats per token; None where a stage has none."""
        return metrics.validation_loss(self.run.evals, len(self.run.stages), self.run.endings)

    @property
    def side(self) -> dict[str, float | None]:
        """What the last stage's task is scored on besides its accuracy."""
        return self.run.side_scores(self.run.last, self.run.stages[self.run.last - 1])

    def lack(self, criterion: Criterion) -> str:
        """Why the point cannot be compared by ``criterion``; empty if it can."""
        if criterion == "accuracy" or self.loss is not None:
            return ""
        if self.validation is None:
            return "not every stage has validation rows that could be scored, or that have a loss"
        return "not every stage has a validation loss, and other points have no validation accuracy"

    def result(self) -> PointResult:
        run, (accuracy, n) = self.run, self.validation or (None, 0)
        ended = run.completeness[run.stages[run.last - 1]][run.last] or {}
        return {
            "validation": accuracy,
            "validation_n": n,
            "validation_loss": self.loss,
            "stages": [run.matrix[k][column] for k, column in enumerate(run.trained, 1)],
            "side": self.side,
            "cut": ended.get("cut"),
            "exact": ended.get("exact"),
            "metrics": {name: run.metrics[name] for name in TABLED},
            "steps": len(run.steps),
            "seconds": run.seconds,
        }


def criterion_of(points: Iterable[TrainedPoint]) -> Criterion:
    """What all points can be compared by: the loss, unless each of them has an accuracy."""
    return "accuracy" if all(trained.validation is not None for trained in points) else "loss"


def incomparable(points: Mapping[str, TrainedPoint], criterion: Criterion) -> dict[str, str]:
    """The points that lack what all are compared by, each with the reason."""
    return {name: lack for name, trained in points.items() if (lack := trained.lack(criterion))}


def choose(groups: Sequence[Sequence[TrainedPoint]], criterion: Criterion) -> Choice:
    """The choice between points, each with its seeds; none lacks what ``criterion`` needs."""
    lr = [seeds[0].point.recipe.train.lr for seeds in groups]
    losses, candidates = [_mean_loss(seeds) for seeds in groups], [_candidate(seeds) for seeds in groups]
    error = None
    if criterion == "loss":
        measured = [LossCandidate(loss, rate) for loss, rate in zip(losses, lr, strict=True) if loss is not None]
        taken = best = selection.pick_by_loss(measured)
    else:
        scored = [candidate for candidate in candidates if candidate]
        taken = selection.pick(scored)
        best = max(range(len(scored)), key=lambda i: scored[i].accuracy)
        error = selection.standard_error(scored[best])

    def accuracy(i: int) -> float | None:
        candidate = candidates[i]
        return candidate.accuracy if candidate else None

    top: BestPoint = {
        "settings": groups[best][0].point.settings,
        "validation": accuracy(best),
        "validation_loss": losses[best],
        "standard_error": error,
    }
    return {
        "settings": groups[taken][0].point.settings,
        "validation": accuracy(taken),
        "validation_loss": losses[taken],
        "best": top,
        "over_seeds": over_seeds(groups[taken]),
    }


def _candidate(seeds: Sequence[TrainedPoint]) -> Candidate | None:
    """The runs of one point, seeds pooled; None where one has no accuracy."""
    scored = [trained.validation for trained in seeds if trained.validation]
    if len(scored) < len(seeds):
        return None
    return Candidate(statistics.fmean(a for a, _ in scored), sum(n for _, n in scored), seeds[0].point.recipe.train.lr)


def _mean_loss(seeds: Sequence[TrainedPoint]) -> float | None:
    losses = [trained.loss for trained in seeds if trained.loss is not None]
    return statistics.fmean(losses) if losses and len(losses) == len(seeds) else None


def over_seeds(seeds: Sequence[TrainedPoint]) -> OverSeeds:
    """Mean and 95 % t-interval of each metric and side score over the runs of one point."""
    scores = [{**trained.run.metrics, **trained.side} for trained in seeds]
    means: dict[str, SeedMean] = {}
    for key in [*TABLED, *(seeds[0].side if seeds else ())]:
        values = [value for score in scores if (value := score.get(key)) is not None]
        if values:
            mean, interval = seed_mean(values)
            means[key] = {"mean": mean, "interval": list(interval) if interval else None}
    return {"seeds": [trained.point.seed for trained in seeds], "metrics": means}
