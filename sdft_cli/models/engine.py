"""What an engine offers to training and evaluation. Engines themselves are the files of ``engines/``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sdft_cli.config.recipe import Sampler
from sdft_cli.models.pretrained import Policy
from sdft_cli.types import Rollout


class Engine(Protocol):
    """Samples completions of a policy, which it keeps: token ids in, token ids out."""

    name: str
    policy: Policy

    def sample(
        self, prompts: Sequence[list[int]], sampler: Sampler, max_new_tokens: int, seed: int, greedy: bool = False
    ) -> list[Rollout]:
        """One rollout a prompt, in order, with the sampler's own log-probs; equal arguments give equal results."""
        ...

    def sync(self) -> int:
        """The policy's weights have changed: sample with the new ones from now on; returns their version."""
        ...

    def close(self) -> None:
        """Give back what the engine holds; it is not used again."""
        ...
