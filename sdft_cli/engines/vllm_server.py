"""Sampling with a vLLM server that runs by itself: on other GPUs, or on another machine that shares a folder.

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs --port 8000
    sdft train --engine vllm-server --set engine.base_url=http://localhost:8000

The development mode is what allows a server's weights to be changed. They travel through ``engine.weights_folder`` as a
plain model folder (``reload_weights``), which makes no demands on where server and trainer run; vLLM's transfers over
NCCL and IPC need the same release on both sides. An adapter also needs ``--enable-lora --max-lora-rank R`` and
VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, and travels as an adapter. vLLM's CPU build (0.32) needs
``--no-enable-chunked-prefill``: it crashes on a request that has a seed and whose prompt is read in chunks.

A server can serve one run at a time; after every sampling the engine checks that nobody else has changed its weights.
It is left with the run's last weights. Requests arrive in no fixed order, so equal calls give equal results up to
rounding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdft_cli.config.recipe import EngineSettings, Sampler
from sdft_cli.engines._http import HttpClient
from sdft_cli.engines._vllm import Generated, SamplingParameters, VllmEngine, base_location, rank_of
from sdft_cli.engines._vllm_api import VllmApi
from sdft_cli.engines._weight_check import are_processed
from sdft_cli.engines._weight_transfer import WeightTransfer
from sdft_cli.errors import UsageError

if TYPE_CHECKING:
    from sdft_cli.models.engine import EngineClass
    from sdft_cli.models.policy import Policy
    from sdft_cli.types import Rollout

#: At this temperature, the highest that a server takes, processed log-probs are far from the model's own.
HOT = Sampler(temperature=2.0)


class ServerEngine(VllmEngine):
    """The server at ``settings.base_url``, holding ``policy``'s weights."""

    name = "vllm-server"
    one_process = True

    def __init__(self, policy: Policy, settings: EngineSettings | None = None):
        self.weights: WeightTransfer | None = None
        super().__init__(policy, settings)
        self._check_logprobs()

    @staticmethod
    def check(settings: EngineSettings) -> None:
        if not settings.base_url:
            raise UsageError(
                "the engine vllm-server needs an address",
                f"start a server with `{command('MODEL')}` and add --set engine.base_url=http://localhost:8000",
            )
        HttpClient(settings.base_url, 1)
        if settings.weights_folder and not os.access(settings.weights_folder, os.W_OK):
            raise UsageError(
                f"engine.weights_folder {settings.weights_folder} is not a writable folder",
                "name one that the server sees under the same path",
            )

    def _open(self) -> None:
        client = HttpClient(self.settings.base_url or "", self.settings.max_batch)
        self.api = VllmApi(client, command(base_location(self.policy), rank_of(self.policy)))
        self.window = self.api.window
        self.weights = WeightTransfer(self.policy, self.api, self.settings.weights_folder)

    def close(self) -> None:
        if self.weights is not None:
            self.weights.close()
            self.weights = None

    def sample(
        self,
        prompts: Sequence[list[int]],
        sampler: Sampler,
        max_new_tokens: int,
        seed: int,
        greedy: bool = False,
        rows: Sequence[int] | None = None,
    ) -> list[Rollout]:
        self.api.reset_prefix_cache()
        rollouts = super().sample(prompts, sampler, max_new_tokens, seed, greedy, rows)
        self.weight_check.check_unchanged(self._read(self.weight_check.sequences))
        return rollouts

    def _push(self) -> None:
        self._transfer().push()

    def _generate(self, prompts: Sequence[list[int]], parameters: Sequence[SamplingParameters]) -> list[Generated]:
        return self.api.generate(self._transfer().model, prompts, parameters)

    def _read(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        return self.api.prompt_logprobs(self._transfer().model, sequences)

    def _transfer(self) -> WeightTransfer:
        assert self.weights is not None, "the engine is closed"
        return self.weights

    def _check_logprobs(self) -> None:
        """A client cannot choose which log-probs it gets, so the first ones show which the server gives."""
        prompts = self.weight_check.sequences
        completions = self._generate(prompts, [self._parameters(HOT, 1, i, greedy=False) for i in range(len(prompts))])
        tokens, logprobs = [c.ids[0] for c in completions], [c.logprobs[0] for c in completions]
        if not are_processed(self.policy, prompts, tokens, logprobs, HOT.temperature):
            self.close()
            raise UsageError(
                f"the server at {self.api.url} gives log-probs from before temperature and truncation",
                f"start it with `{self.api.command}`",
            )


def command(model: str, rank: int = 0) -> str:
    """How to start a server whose weights can be updated; ``rank`` is an adapter's, or 0."""
    words = f"VLLM_SERVER_DEV_MODE=1 vllm serve {model} --logprobs-mode processed_logprobs"
    return f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 {words} --enable-lora --max-lora-rank {rank}" if rank else words


ENGINE: EngineClass = ServerEngine
