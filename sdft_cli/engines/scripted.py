"""An engine that says what it is told: for tests and for trying a grader without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sdft_cli.types import Rollout

if TYPE_CHECKING:
    from sdft_cli.config.recipe import Sampler


class ScriptedEngine:
    """``script`` maps prompt ids to completion ids; every log-prob is 0 (it never doubts)."""

    name = "scripted"

    def __init__(self, script: Callable[[list[int]], list[int]]):
        self.script, self.version = script, 0

    def sync(self) -> int:
        self.version += 1
        return self.version

    def close(self) -> None:
        """Nothing is held."""

    def sample(
        self, prompts: Sequence[list[int]], sampler: Sampler, max_new_tokens: int, seed: int, greedy: bool = False
    ) -> list[Rollout]:
        rollouts = []
        for i, prompt in enumerate(prompts):
            ids = self.script(prompt)
            finish = "stop" if len(ids) <= max_new_tokens else "length"
            ids = ids[:max_new_tokens]
            rollouts.append(Rollout(prompt, ids, [0.0] * len(ids), finish, i, version=self.version))
        return rollouts


ENGINE = ScriptedEngine
