"""A request to `sdft eval`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sdft_cli.evaluation.target import Target
from sdft_cli.types import Json, NewTokens


@dataclass(frozen=True)
class EvalRequest:
    """None means "as in the run", or the default.

    ``suite="new"`` means the test splits of the tasks. With neither suite nor tasks, a run is scored on its own tasks
    and suite, and a model on the suite ``micro``. ``pass_at`` holds the k of pass@k, estimated from ``samples``
    completions per question (None: the largest k). Without ``cache``, no earlier evaluation is read and this one is not
    kept. ``settings`` is a recipe layer: how engine, harness and machine are used, and which judge scores the tasks
    that have a rubric. ``also`` names `diagnostics`, and ``base`` the base model for them (None: the run's).
    """

    target: Target
    suite: str | None = None
    tasks: tuple[str, ...] = ()
    data: Path | None = None
    limit: int | None = None
    max_new_tokens: NewTokens | None = None
    pass_at: tuple[int, ...] = ()
    samples: int | None = None
    out: Path | None = None
    cache: bool = True
    settings: dict[str, Json] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    base: str | None = None

    @property
    def names_judge(self) -> bool:
        """Whether a judge is asked for here, and is not only the run's."""
        return bool(self.settings.get("judge"))

    @property
    def draws(self) -> int:
        """Completions per question to draw for pass@k; 0 without it."""
        return self.samples or max(self.pass_at, default=0)
