"""An engine that replies from a script: for tests, and for trying a grader without sampling from the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sdft_cli.types import Rollout

if TYPE_CHECKING:
    from sdft_cli.config.recipe import EngineSettings, Sampler
    from sdft_cli.models.engine import EngineClass
    from sdft_cli.models.policy import Policy

Script = Callable[[list[int]], list[int]]


class ScriptedEngine:
    """``script`` maps a prompt's ids to a completion's; without one every completion is empty but for its end.

    Every log-prob is 0: the script is always sure, and knows nothing of seeds and rows.
    """

    name = "scripted"

    def __init__(self, policy: Policy, settings: EngineSettings | None = None, script: Script | None = None):
        self.policy, self.version = policy, 0
        self.script = script or (lambda prompt: [policy.chat.eos_id])

    def sync(self) -> int:
        self.version += 1
        return self.version

    def close(self) -> None:
        """There is nothing to free."""

    def sample(
        self,
        prompts: Sequence[list[int]],
        sampler: Sampler,
        max_new_tokens: int,
        seed: int,
        greedy: bool = False,
        rows: Sequence[int] | None = None,
    ) -> list[Rollout]:
        rollouts = []
        for i, prompt in enumerate(prompts):
            ids = self.script(prompt)
            finish = "stop" if len(ids) <= max_new_tokens else "length"
            ids = ids[:max_new_tokens]
            rollouts.append(Rollout(prompt, ids, [0.0] * len(ids), finish, i, version=self.version))
        return rollouts


ENGINE: EngineClass = ScriptedEngine
