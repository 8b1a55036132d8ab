"""What an engine offers to training and evaluation. Engines themselves are the files of ``engines/``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from sdft_cli.config.recipe import EngineSettings, Sampler
from sdft_cli.contracts import Contract
from sdft_cli.plugins import Room
from sdft_cli.types import Rollout

if TYPE_CHECKING:  # torch comes in with it, and whether an engine's name exists is checked before
    from sdft_cli.models.pretrained import Policy


class Engine(Protocol):
    """Samples completions of a policy, which it keeps: token ids in, token ids out."""

    name: str
    policy: Policy

    def sample(
        self, prompts: Sequence[list[int]], sampler: Sampler, max_new_tokens: int, seed: int, greedy: bool = False
    ) -> list[Rollout]:
        """One rollout per prompt, in order, with the sampler's own log-probs; equal arguments give equal results."""
        ...

    def sync(self) -> int:
        """The policy's weights have changed: sample with the new ones from now on; returns their version."""
        ...

    def close(self) -> None:
        """Release whatever the engine holds; it is not used again."""
        ...


class EngineClass(Protocol):
    """What an engine file's ENGINE is: a class, made from a policy and the recipe's ``engine`` section."""

    name: str

    def __call__(self, policy: Policy, settings: EngineSettings) -> Engine: ...


ENGINES: Room[EngineClass] = Room(
    "engine",
    Contract(
        (type,),
        {
            "__init__": ("policy", "settings"),
            "sample": ("prompts", "sampler", "max_new_tokens", "seed"),
            "sync": (),
            "close": (),
        },
        "class MyEngine: name = 'my-engine' …, then ENGINE = MyEngine; CONTRIBUTING.md, 'Add an engine'",
    ),
    folder="engines",
)
