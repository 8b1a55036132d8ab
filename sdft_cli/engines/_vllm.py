"""What vLLM's two engines share: requests, checks of what comes back, and weight updates that are verified.

Each engine holds its own copy of the weights. It is filled when the engine is made, renewed by every `sync`, and
compared with the trainer's every time (`_weight_check`).
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from sdft_cli.config.recipe import EngineSettings
from sdft_cli.engines._weight_check import WeightCheck
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.models import quantization
from sdft_cli.models.adapters import STUDENT
from sdft_cli.models.engine import EngineFacts, numbered, row_seed
from sdft_cli.types import Rollout

if TYPE_CHECKING:
    from torch import Tensor

    from sdft_cli.config.recipe import Sampler
    from sdft_cli.models.policy import Policy

#: Ranks that vLLM has kernels for; an adapter of another rank uses the next one.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


class SamplingParameters(TypedDict, total=False):
    """Sampling parameters by vLLM's names. ``logprobs`` and ``prompt_logprobs`` of 0: of the token itself alone."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    max_tokens: int
    seed: int
    stop_token_ids: list[int]
    ignore_eos: bool
    logprobs: int
    prompt_logprobs: int


#: A request for a prompt's log-probs; vLLM always generates a token as well.
READ: SamplingParameters = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0}


@dataclass(frozen=True)
class Generated:
    """A completion as vLLM returns it: ids with the stop token, the log-prob of each, and why it ended."""

    ids: list[int]
    logprobs: list[float]
    finish: str


class VllmEngine(ABC):
    """A vLLM engine without its transport. Making one opens it and hands over the policy's weights."""

    name: str

    def __init__(self, policy: Policy, settings: EngineSettings | None = None):
        self.policy, self.settings = policy, settings or EngineSettings()
        self.check(self.settings)
        if quantization.made_here(policy.core):
            raise UsageError(*quantization.SERVED_WHOLE)
        self.version = 0
        self.facts = EngineFacts()
        self.stop = policy.stop_ids
        self.weight_check = WeightCheck(policy, self.settings.sync_tolerance)
        self.window = 0  # tokens of prompt and completion together; set by `_open`
        try:
            self._open()
            self._update()
        except BaseException:
            self.close()
            raise

    @staticmethod
    @abstractmethod
    def check(settings: EngineSettings) -> None:
        """Raise `UsageError` for what is missing, as far as that can be told before a model is loaded."""

    @abstractmethod
    def _open(self) -> None:
        """Get the engine ready for requests, and set ``window``."""

    @abstractmethod
    def _push(self) -> None:
        """Give the engine the policy's weights (under LoRA, its adapter), and drop what it cached with older ones."""

    @abstractmethod
    def _generate(self, prompts: Sequence[list[int]], parameters: Sequence[SamplingParameters]) -> list[Generated]:
        """One completion per prompt, in order."""

    @abstractmethod
    def _read(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        """The log-prob of every token but the first of each sequence."""

    @abstractmethod
    def close(self) -> None:
        """Free memory, folders and adapters. May be called twice, and on an engine that never opened."""

    def sync(self) -> int:
        """The weights have changed: hand them over and verify that they arrived; returns their version.

        Raises `SdftError` where the engine's log-probs are not the trainer's.
        """
        self.version += 1
        self._update()
        return self.version

    def _update(self) -> None:
        self._push()
        self.facts["sync_gap"] = self.weight_check.compare(self.version, self._read(self.weight_check.sequences))

    def sample(
        self,
        prompts: Sequence[list[int]],
        sampler: Sampler,
        max_new_tokens: int,
        seed: int,
        greedy: bool = False,
        rows: Sequence[int] | None = None,
    ) -> list[Rollout]:
        """One completion per prompt, in their order. Each request has its own seed, made of ``seed`` and its row.

        Raises `SdftError` for a prompt that fills the window, and for a completion that is not what was requested.
        """
        limits = [min(max_new_tokens, self.window - len(prompt)) for prompt in prompts]
        if prompts and min(limits) < 1:
            longest = max(map(len, prompts))
            raise SdftError(
                f"a prompt of {longest} tokens leaves no room in the engine's window of {self.window}",
                "lower train.max_prompt_tokens, or give vLLM more memory (engine.memory_share)",
            )
        pairs = zip(limits, numbered(prompts, rows), strict=True)
        parameters = [self._parameters(sampler, limit, row_seed(seed, row), greedy) for limit, row in pairs]
        completions = self._generate(prompts, parameters) if prompts else []
        if len(completions) != len(prompts):
            raise SdftError(f"vLLM returned {len(completions)} completions for {len(prompts)} prompts")
        rollouts = []
        for i, (prompt, completion, limit) in enumerate(zip(prompts, completions, limits, strict=True)):
            if wrong := complaint(completion, limit, self.stop):
                raise SdftError(f"vLLM's completion {i} is not what was requested: {wrong}")
            rollouts.append(
                Rollout(prompt, completion.ids, completion.logprobs, completion.finish, i, version=self.version)
            )
        return rollouts

    def _parameters(self, sampler: Sampler, limit: int, seed: int, greedy: bool) -> SamplingParameters:
        """Every parameter, neutral ones included: a server takes what is left out from the model's generation
        config."""
        return {
            "temperature": 0.0 if greedy else sampler.temperature,
            "top_p": 1.0 if greedy else sampler.top_p,
            "top_k": 0 if greedy else sampler.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "max_tokens": limit,
            "seed": seed,
            "stop_token_ids": self.stop,
            "ignore_eos": True,  # of the model's own; `stop_token_ids` has ours
            "logprobs": 0,
        }


def complaint(completion: Generated, limit: int, stop: Sequence[int]) -> str:
    """What is wrong with a completion of at most ``limit`` tokens; empty where nothing is."""
    ids, logprobs = completion.ids, completion.logprobs
    if not 1 <= len(ids) <= limit:
        return f"{len(ids)} tokens instead of at most {limit}"
    if len(logprobs) != len(ids):
        return f"{len(logprobs)} log-probs for {len(ids)} tokens"
    if bad := [x for x in logprobs if not (math.isfinite(x) and x < 1e-2)]:
        return f"a log-prob of {bad[0]}"
    if any(t in stop for t in ids[:-1]):
        return "it continues after a stop token"
    ended = "stop" if ids[-1] in stop else "length"
    if completion.finish != ended or (ended == "length" and len(ids) < limit):
        return f"it ended with {completion.finish!r} after {len(ids)} of {limit} tokens, the last of which is {ids[-1]}"
    return ""


def checkpoint_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Every weight under its name in the model's files, tied ones once; live tensors, not copies."""
    from transformers.core_model_loading import revert_weight_conversion

    seen: set[int] = set()
    weights = {}
    for name, tensor in policy.core.state_dict().items():
        if tensor.data_ptr() not in seen:
            weights[name] = tensor.detach()
            seen.add(tensor.data_ptr())
    yield from revert_weight_conversion(policy.core, weights).items()


def base_location(policy: Policy) -> str:
    """The folder or hub id of the model, without its adapter."""
    return policy.core.config._name_or_path or policy.name


def memory_folder() -> str | None:
    """A folder in memory where there is one; None for the machine's temporary folder."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and os.access(shared, os.W_OK) else None


def rank_of(policy: Policy) -> int:
    """The rank that vLLM needs for the policy's adapter; 0 without an adapter."""
    if policy.peft is None:
        return 0
    rank = policy.peft.peft_config[STUDENT].r
    return next((r for r in RANKS if r >= rank), rank)
