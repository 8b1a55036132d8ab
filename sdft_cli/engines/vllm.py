"""Sampling with vLLM in the trainer's own process: on the same GPU, or with vLLM's CPU build.

Weights are handed over as live tensors (``reload_weights``), adapters as adapters through a folder in memory; nothing
is ever merged. On a GPU vLLM takes ``engine.memory_share`` of its memory for a copy of the weights and for its cache.
With ``engine.sleep`` it returns that memory after every sampling, so that the trainer has the whole GPU, and is handed
the weights again before the next. This engine uses one GPU; for more there is the engine ``vllm-server``.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sdft_cli.config.recipe import EngineSettings
from sdft_cli.engines._vllm import (
    READ,
    Generated,
    SamplingParameters,
    VllmEngine,
    base_location,
    checkpoint_weights,
    memory_folder,
    rank_of,
)
from sdft_cli.errors import SdftError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from sdft_cli.config.recipe import Sampler
    from sdft_cli.models.engine import EngineClass
    from sdft_cli.models.policy import Policy
    from sdft_cli.types import Rollout

#: A CPU has no GPU memory to take a share of, and vLLM's CPU build fails (0.32: "CPU Generator does not use offset") on
#: a request that has a seed and whose prompt is read in chunks.
ON_CPU = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 30, "enable_chunked_prefill": False}
#: Set before vLLM is imported: weights are handed over as live tensors, so vLLM must run in this process.
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
#: vLLM's own output goes to stderr, as stdout is for ``--json``.
QUIET = {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_LOGGING_LEVEL": "ERROR"}
#: When one of several engines in a process ends, vLLM tears down what they share, so they are all ended with the last
#: one that closes. An engine that an error left open does not count.
_alive: weakref.WeakSet[ColocatedEngine] = weakref.WeakSet()
_ended: list[_Llm] = []


# --- what is used of vLLM, which is typed for those who have it ------------------------------------------------------


class _Logprob(Protocol):
    logprob: float


class _LoraRequest(Protocol):
    lora_int_id: int
    lora_path: str


class _CompletionOutput(Protocol):
    token_ids: Sequence[int]
    logprobs: Sequence[Mapping[int, _Logprob]] | None
    finish_reason: str | None


class _RequestOutput(Protocol):
    outputs: Sequence[_CompletionOutput]
    prompt_logprobs: Sequence[Mapping[int, _Logprob]]


class _ModelConfig(Protocol):
    max_model_len: int


class _EngineCore(Protocol):
    def shutdown(self) -> None: ...


class _LlmEngine(Protocol):
    model_config: _ModelConfig
    engine_core: _EngineCore

    def add_lora(self, lora_request: _LoraRequest) -> bool: ...

    def remove_lora(self, lora_id: int) -> bool: ...


class _Llm(Protocol):
    """``vllm.LLM``."""

    llm_engine: _LlmEngine

    def generate(
        self,
        prompts: Sequence[Mapping[str, list[int]]],
        sampling_params: Sequence[object],
        *,
        use_tqdm: bool,
        lora_request: _LoraRequest | None,
    ) -> list[_RequestOutput]: ...

    def collective_rpc(self, method: str, *, kwargs: Mapping[str, object]) -> object: ...

    def apply_model(self, func: Callable[[nn.Module], None]) -> object: ...

    def reset_prefix_cache(self) -> bool | None: ...

    def sleep(self, level: int) -> None: ...

    def wake_up(self, tags: list[str] | None) -> None: ...


# --- the engine ------------------------------------------------------------------------------------------------------


class ColocatedEngine(VllmEngine):
    """vLLM holding a second copy of ``policy``'s weights in this process."""

    name = "vllm"
    one_process = True

    def __init__(self, policy: Policy, settings: EngineSettings | None = None):
        self.llm: _Llm | None = None
        self.adapter: _LoraRequest | None = None
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.asleep, self.pushes = False, 0
        # on a CPU there is no memory to return
        self.sleeps = (settings or EngineSettings()).sleep and policy.device.type == "cuda"
        super().__init__(policy, settings)

    @staticmethod
    def check(settings: EngineSettings) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise UsageError("vLLM is not installed", "pip install 'sdft-cli[vllm]', or leave out --engine vllm")
        if settings.sleep and settings.prefetch:  # it would wake up to the weights of a step that is under way
            raise UsageError(
                "engine.sleep and engine.prefetch exclude each other: vLLM cannot sample while it sleeps",
                "set engine.sleep=false, or engine.prefetch=0",
            )

    # opening and closing ----------------------------------------------------------------------------------------

    def _open(self) -> None:
        import torch

        if self.policy.device.type == "cuda" and self.policy.device.index:
            raise UsageError(
                f"vLLM in the same process uses the first GPU, but the model is on {self.policy.device}",
                "choose the GPU with CUDA_VISIBLE_DEVICES, and leave runtime.device at auto",
            )
        os.environ.update(ENVIRONMENT)
        for key, value in QUIET.items():
            os.environ.setdefault(key, value)
        from vllm import LLM

        set_num_threads = torch.set_num_threads
        _release()
        try:
            self.llm = llm = LLM(**self._options())
        except (OSError, ValueError, RuntimeError, AssertionError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"vLLM cannot hold {self.policy.name}: {reason}",
                "see engine.memory_share for memory; --engine transformers needs no memory of its own",
            ) from error
        finally:
            torch.set_num_threads = set_num_threads  # vLLM's CPU build replaces it by a function that does nothing
        _alive.add(self)
        self.window = int(llm.llm_engine.model_config.max_model_len)

    def _options(self) -> dict[str, object]:
        options: dict[str, object] = {
            "model": base_location(self.policy),
            "skip_tokenizer_init": True,  # ids in, ids out
            "dtype": str(self.policy.dtype).removeprefix("torch."),
            "max_num_seqs": self.settings.max_batch,
            "max_model_len": -1,  # the model's own window, or what fits into memory
            "logprobs_mode": "processed_logprobs",
            "generation_config": "vllm",  # none of the model's own sampling settings
            "distributed_executor_backend": "uni",
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if self.policy.lora:
            options |= {"enable_lora": True, "max_lora_rank": rank_of(self.policy), "max_loras": 1}
        if self.policy.device.type == "cpu":
            return {**options, **ON_CPU}
        share = {"gpu_memory_utilization": self.settings.memory_share, "enable_sleep_mode": self.settings.sleep}
        return {**options, **share}

    def _opened(self) -> _Llm:
        assert self.llm is not None, "the engine is closed"
        return self.llm

    def close(self) -> None:
        if self.llm is not None:
            with contextlib.suppress(SdftError):
                self._wake()  # while asleep its memory is already returned, and would be returned a second time
            _alive.discard(self)
            _ended.append(self.llm)
            self.llm = None
        gc.collect()
        if _ended and not _alive:
            while _ended:
                _ended.pop().llm_engine.engine_core.shutdown()
            gc.collect()
            _release()
        if self.folder is not None:
            self.folder.cleanup()
            self.folder = None

    # weights ----------------------------------------------------------------------------------------------------

    def _push(self) -> None:
        if self.policy.lora:
            self._wake()
            self._push_adapter()
        else:
            self._wake("weights")
            weights = {"weights_iterator": checkpoint_weights(self.policy)}
            self._opened().collective_rpc("reload_weights", kwargs=weights)
            if self.policy.device.type == "cpu":
                self._opened().apply_model(_prepack_head)
            self._wake("kv_cache")
            self.asleep = False
        self._reset_cache()

    def _push_adapter(self) -> None:
        """Load the adapter under a new id, for vLLM caches adapters by their id; then drop the one before it."""
        from vllm.lora.request import LoRARequest

        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix="sdft-adapter-", dir=memory_folder())
        self.pushes += 1
        files = Path(self.folder.name) / str(self.pushes)
        self.policy.save_weights(files)
        before = self.adapter
        self.adapter = adapter = LoRARequest(f"sdft-{self.pushes}", self.pushes, str(files))
        engine = self._opened().llm_engine
        if before is not None:
            engine.remove_lora(before.lora_int_id)
            shutil.rmtree(before.lora_path)
        if not engine.add_lora(adapter):
            raise SdftError(f"vLLM did not accept version {self.version} of the adapter")

    def _reset_cache(self) -> None:
        """Keys and values of other weights are useless, and equal calls must find equal caches."""
        if self._opened().reset_prefix_cache() is False:  # older releases return nothing
            raise SdftError("vLLM did not reset its prefix cache", "this is a fault of the engine: start the run again")

    # sleep ------------------------------------------------------------------------------------------------------

    def _wake(self, *tags: str) -> None:
        if self.asleep:
            _release()  # vLLM needs the memory that torch keeps for the trainer's next pass
            try:
                self._opened().wake_up(list(tags) or None)
            except RuntimeError as error:
                raise SdftError(
                    f"vLLM could not wake up beside the model in training: {str(error).splitlines()[0]}",
                    "lower engine.memory_share, or the memory of training: train.optimizer=adamw8bit, lora.rank",
                ) from error
            self.asleep = bool(tags)

    def _sleep(self) -> None:
        """Level 2 discards the weights, which the trainer has; level 1 keeps them, as an adapter's base is never handed
        over."""
        if self.sleeps:
            self._opened().sleep(level=1 if self.policy.lora else 2)
            self.asleep = True

    # requests ---------------------------------------------------------------------------------------------------

    def sample(
        self,
        prompts: Sequence[list[int]],
        sampler: Sampler,
        max_new_tokens: int,
        seed: int,
        greedy: bool = False,
        rows: Sequence[int] | None = None,
    ) -> list[Rollout]:
        if self.asleep:
            self._update()
        self._reset_cache()
        rollouts = super().sample(prompts, sampler, max_new_tokens, seed, greedy, rows)
        self._sleep()
        return rollouts

    def _generate(self, prompts: Sequence[list[int]], parameters: Sequence[SamplingParameters]) -> list[Generated]:
        return [_generated(request.outputs[0]) for request in self._requested(prompts, parameters)]

    def _read(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        requests = self._requested(sequences, [READ] * len(sequences))
        return [
            [tokens[t].logprob for t, tokens in zip(ids[1:], request.prompt_logprobs[1:], strict=True)]
            for ids, request in zip(sequences, requests, strict=True)
        ]

    def _requested(
        self, prompts: Sequence[list[int]], parameters: Sequence[SamplingParameters]
    ) -> list[_RequestOutput]:
        from vllm import SamplingParams

        inputs = [{"prompt_token_ids": ids} for ids in prompts]
        each = [SamplingParams(**given, detokenize=False) for given in parameters]
        return self._opened().generate(inputs, each, use_tqdm=False, lora_request=self.adapter)


def _generated(output: _CompletionOutput) -> Generated:
    ids = list(output.token_ids)
    logprobs = [tokens[t].logprob for t, tokens in zip(ids, output.logprobs or (), strict=True)]
    return Generated(ids, logprobs, str(output.finish_reason))


def _prepack_head(model: nn.Module) -> None:
    """Renew vLLM's prepacked copy of the output head.

    Its CPU build multiplies by that copy and does not renew it where the head is tied to the embeddings, since an
    update loads those and nothing into the head itself.
    """
    head = getattr(model, "lm_head", None)
    if head is not None and hasattr(head, "cpu_linear"):
        head.quant_method.process_weights_after_loading(head)


def _release() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


ENGINE: EngineClass = ColocatedEngine
