"""What vLLM's two engines share: the requests, the check of what comes back, and a sync that is not believed but seen.

Both hold a copy of the weights of their own. It is filled when the engine is made, renewed by every `sync`, and
compared with the trainer's each time (`_synccheck`).
"""

from __future__ import annotations

import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft_cli.config.recipe import EngineSettings
from sdft_cli.engines._weight_check import SyncCheck
from sdft_cli.errors import SdftError
from sdft_cli.models import pretrained
from sdft_cli.types import Rollout

if TYPE_CHECKING:
    from torch import Tensor

    from sdft_cli.config.recipe import Sampler
    from sdft_cli.models.pretrained import Policy

#: Ranks that vLLM has kernels for; an adapter of another takes the next.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Generated:
    """What vLLM says it has written: ids with the stop token, the log-prob of each, and why it ended."""

    ids: list[int]
    logprobs: list[float]
    finish: str


class VllmEngine(ABC):
    """The engine without its transport. ``facts`` goes into the step rows of the metrics."""

    name: str

    def __init__(self, policy: Policy, settings: EngineSettings | None = None):
        self.policy, self.settings = policy, settings or EngineSettings()
        self.check(self.settings)
        self.version, self.facts = 0, dict[str, Any]()
        self.stop = pretrained.stop_ids(policy)
        self.synced = SyncCheck(policy, self.settings.sync_tolerance)
        self.window = 0  # tokens of prompt and completion together; `_open` finds out
        try:
            self._open()
            self._update()
        except BaseException:
            self.close()
            raise

    @staticmethod
    @abstractmethod
    def check(settings: EngineSettings) -> None:
        """Raise `UsageError` for what can be known to be missing before a model is loaded."""

    @abstractmethod
    def _open(self) -> None:
        """Make the engine ready to be asked, and set ``window``."""

    @abstractmethod
    def _push(self) -> None:
        """Give the engine the policy's weights (its adapter under LoRA), and forget what was cached with others."""

    @abstractmethod
    def _ask(self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]]) -> list[Generated]:
        """One answer a prompt."""

    @abstractmethod
    def _read(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        """The log-prob of every token but the first of each sequence."""

    @abstractmethod
    def close(self) -> None:
        """Let go of memory, folders and adapters. May be called twice, and on an engine that never opened."""

    def sync(self) -> int:
        """The weights have changed: hand them over and see that they arrived; returns their version.

        Raises `SdftError` where the engine's log-probs are not those of the trainer.
        """
        self.version += 1
        self._update()
        return self.version

    def _update(self) -> None:
        self._push()
        self.facts["sync_gap"] = self.synced.look(self.version, self._read(self.synced.sequences))

    def sample(
        self, prompts: Sequence[list[int]], sampler: Sampler, max_new_tokens: int, seed: int, greedy: bool = False
    ) -> list[Rollout]:
        """One completion a prompt, in the order of ``prompts``. Every row has a seed of its own, made of ``seed`` and
        its place; raises `SdftError` for an answer that is not what was asked for."""
        limits = [min(max_new_tokens, self.window - len(prompt)) for prompt in prompts]
        if prompts and min(limits) < 1:
            longest = max(map(len, prompts))
            raise SdftError(
                f"a prompt of {longest} tokens leaves no room in the engine's window of {self.window}",
                "lower train.max_prompt_tokens, or give vLLM more memory (engine.memory_share)",
            )
        params = [self._params(sampler, limit, row_seed(seed, i), greedy) for i, limit in enumerate(limits)]
        answers = self._ask(prompts, params) if prompts else []
        if len(answers) != len(prompts):
            raise SdftError(f"vLLM gave {len(answers)} completions for {len(prompts)} prompts")
        rollouts = []
        for i, (prompt, answer, limit) in enumerate(zip(prompts, answers, limits, strict=True)):
            if wrong := complaint(answer, limit, self.stop):
                raise SdftError(f"vLLM's completion {i} is not what was asked for: {wrong}")
            rollouts.append(Rollout(prompt, answer.ids, answer.logprobs, answer.finish, i, version=self.version))
        return rollouts

    def _params(self, sampler: Sampler, limit: int, seed: int, greedy: bool) -> dict[str, Any]:
        """Every parameter by vLLM's name, the neutral ones too: a server takes what is left out from the model's
        generation config."""
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
            "ignore_eos": True,  # the model's own: ours are named above
            "logprobs": 0,  # of the sampled token alone
        }


def row_seed(seed: int, index: int) -> int:
    """A 63-bit seed for row ``index`` of a batch with ``seed``: equal prompts must not get equal completions."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8], "big") >> 1


def complaint(answer: Generated, limit: int, stop: Sequence[int]) -> str:
    """What is wrong with an answer of at most ``limit`` tokens; empty where nothing is."""
    ids, logprobs = answer.ids, answer.logprobs
    if not 1 <= len(ids) <= limit:
        return f"{len(ids)} tokens, at most {limit} were asked for"
    if len(logprobs) != len(ids):
        return f"{len(logprobs)} log-probs for {len(ids)} tokens"
    if bad := [x for x in logprobs if not (math.isfinite(x) and x < 1e-2)]:
        return f"a log-prob of {bad[0]}"
    if any(t in stop for t in ids[:-1]):
        return "it went on after a stop token"
    ended = "stop" if ids[-1] in stop else "length"
    if answer.finish != ended or (ended == "length" and len(ids) < limit):
        return f"it ended by {answer.finish!r} after {len(ids)} of {limit} tokens, the last of which is {ids[-1]}"
    return ""


def checkpoint_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Every weight under the name it has in the model's files, tied ones once; live tensors, not copies."""
    from transformers.core_model_loading import revert_weight_conversion

    seen: set[int] = set()
    found = {}
    for name, tensor in policy.core.state_dict().items():
        if tensor.data_ptr() not in seen:
            found[name] = tensor.detach()
            seen.add(tensor.data_ptr())
    yield from revert_weight_conversion(policy.core, found).items()


def base_location(policy: Policy) -> str:
    """The folder or hub id of the model, without its adapter."""
    config: Any = policy.core.config
    return str(config._name_or_path or policy.name)


def memory_folder() -> str | None:
    """A folder in memory where there is one; None for the machine's own temporary folder."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and os.access(shared, os.W_OK) else None


def save_adapter(policy: Policy, folder: Path) -> None:
    """The student's adapter alone, as peft writes it."""
    policy.model.save_pretrained(folder, selected_adapters=[pretrained.STUDENT])  # type: ignore[operator]


def rank_of(policy: Policy) -> int:
    """vLLM's rank for the policy's adapter."""
    rank = policy.model.peft_config[pretrained.STUDENT].r  # type: ignore[union-attr,index]
    return next((r for r in RANKS if r >= rank), rank)
