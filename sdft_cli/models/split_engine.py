"""An engine on every rank, and the rows of a draw split over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sdft_cli.distributed.team import team
from sdft_cli.errors import UsageError
from sdft_cli.models.engine import ENGINES, Deciding, Engine, EngineFacts, Reporting, numbered, takes_rows
from sdft_cli.types import Rollout

if TYPE_CHECKING:
    from sdft_cli.config.recipe import EngineSettings, Sampler
    from sdft_cli.models.policy import Policy


def made_together(policy: Policy, settings: EngineSettings) -> Engine:
    """The engine that ``settings`` name: one on every rank, where there are several."""
    engine = team().make(_made, policy, settings)
    return engine if team().size == 1 else SplitEngine(engine)


def _made(policy: Policy, settings: EngineSettings) -> Engine:
    kind = ENGINES.get(settings.name)
    if team().size > 1 and getattr(kind, "one_process", False):
        raise UsageError(f"engine {settings.name} needs one process so far", "use --engine transformers")
    return kind(policy, settings)


class SplitEngine:
    """``engine`` on every rank; each samples its share of the rows. `UsageError` where it cannot draw in parts."""

    def __init__(self, engine: Engine):
        self.name, self.policy, self.engine = engine.name, engine.policy, engine
        self.closed = False
        if not takes_rows(engine):
            raise UsageError(
                f"engine {engine.name} cannot sample on {team().size} processes: its `sample` takes no `rows`",
                "use another engine, or one process",
            )

    @property
    def facts(self) -> EngineFacts:
        """The leader's."""
        return self.engine.facts if isinstance(self.engine, Reporting) else EngineFacts()

    @property
    def decoder(self) -> str:
        """How each rank decodes."""
        how = self.engine.decoder if isinstance(self.engine, Deciding) else "split"
        return f"{how}, on {team().size} processes"

    def sample(
        self,
        prompts: Sequence[list[int]],
        sampler: Sampler,
        max_new_tokens: int,
        seed: int,
        greedy: bool = False,
        rows: Sequence[int] | None = None,
    ) -> list[Rollout]:
        """As every engine does."""
        numbers = list(numbered(prompts, rows))
        return team().run(_sample, self.engine, list(prompts), sampler, max_new_tokens, seed, greedy, numbers)

    def sync(self) -> int:
        """On every rank."""
        return team().run(_sync, self.engine)

    def close(self) -> None:
        """On every rank."""
        if self.closed:
            return
        self.closed = True
        team().run(_close, self.engine)
        team().forget(self.engine)
        team().forget(self.policy)


def _sample(
    engine: Engine,
    prompts: list[list[int]],
    sampler: Sampler,
    max_new_tokens: int,
    seed: int,
    greedy: bool,
    rows: list[int],
) -> list[Rollout]:
    mine = team().share(len(prompts))
    own, numbers = [prompts[i] for i in mine], [rows[i] for i in mine]
    sampled = engine.sample(own, sampler, max_new_tokens, seed, greedy, rows=numbers) if own else []
    rollouts = team().gather(sampled, len(prompts))
    return [replace(rollout, index=i) for i, rollout in enumerate(rollouts)]


def _sync(engine: Engine) -> int:
    return engine.sync()


def _close(engine: Engine) -> None:
    engine.close()
