"""Sampling with vLLM in the trainer's own process: on the same GPU, or with vLLM's CPU build.

Weights go over as live tensors (``reload_weights``), adapters as adapters through a folder in memory; nothing is ever
merged. On a GPU vLLM takes ``engine.memory_share`` of it for its copy of the weights and its cache. With
``engine.sleep`` it gives that back after every sampling: the trainer then has all of the GPU, and the weights are
handed over again before the next. It is one GPU's engine; what needs more than that is served (`vllm_server`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft_cli.config.recipe import EngineSettings
from sdft_cli.engines._vllm import (
    Generated,
    VllmEngine,
    base_location,
    checkpoint_weights,
    memory_folder,
    rank_of,
    save_adapter,
)
from sdft_cli.errors import SdftError, UsageError

if TYPE_CHECKING:
    from sdft_cli.config.recipe import Sampler
    from sdft_cli.types import Rollout

#: A CPU has no memory of a GPU to take a share of, and vLLM's build for it fails (0.32: "CPU Generator does not use
#: offset") on a request that has a seed and whose prompt is read in parts.
ON_CPU = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 30, "enable_chunked_prefill": False}
#: Set before vLLM is imported: our weights are handed over as live tensors, and stdout is `--json`'s.
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
QUIET = {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_LOGGING_LEVEL": "ERROR"}
#: vLLM tears down what its engines in a process share when any of them ends, so the last to close ends them all. One
#: that was left open by an error does not count.
_alive: weakref.WeakSet[ColocatedEngine] = weakref.WeakSet()
_ended: list[Any] = []


class ColocatedEngine(VllmEngine):
    """vLLM holding a second copy of ``policy``'s weights in this process."""

    name = "vllm"

    def __init__(self, policy: Any, settings: EngineSettings | None = None):
        self.llm: Any = None
        self.adapter: Any = None
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.asleep, self.pushes = False, 0
        self.sleeps = (
            settings or EngineSettings()
        ).sleep and policy.device.type == "cuda"  # a CPU has nothing to give back
        super().__init__(policy, settings)

    @staticmethod
    def check(settings: EngineSettings) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise UsageError("vLLM is not installed", "pip install 'sdft-cli[vllm]', or leave out --engine vllm")
        if settings.sleep and settings.prefetch:  # it would wake to weights in the midst of a step
            hint = "set engine.sleep=false, or engine.prefetch=0"
            raise UsageError("vLLM cannot sleep and write ahead while the model trains", hint)

    # vLLM's life ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        import torch

        if self.policy.device.type == "cuda" and self.policy.device.index:
            raise UsageError(
                f"vLLM in one process takes the first GPU, the model is on {self.policy.device}",
                "choose the GPU by CUDA_VISIBLE_DEVICES, and leave runtime.device at auto",
            )
        os.environ.update(ENVIRONMENT)
        for key, value in QUIET.items():
            os.environ.setdefault(key, value)
        from vllm import LLM

        threads = torch.set_num_threads
        _release()
        try:
            self.llm = LLM(**self._options())
        except (OSError, ValueError, RuntimeError, AssertionError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"vLLM cannot hold {self.policy.name}: {reason}",
                "see engine.memory_share for memory; --engine transformers needs nothing but the model",
            ) from error
        finally:
            torch.set_num_threads = threads  # vLLM's CPU build puts a function that does nothing in its place
        _alive.add(self)
        self.window = int(self.llm.llm_engine.model_config.max_model_len)

    def _options(self) -> dict[str, Any]:
        common = {
            "model": base_location(self.policy),
            "skip_tokenizer_init": True,  # ids in, ids out
            "dtype": str(next(self.policy.core.parameters()).dtype).removeprefix("torch."),
            "max_num_seqs": self.settings.max_batch,
            "max_model_len": -1,  # the model's own window, or what there is memory for
            "logprobs_mode": "processed_logprobs",
            "generation_config": "vllm",  # none of the model's own sampling settings
            "distributed_executor_backend": "uni",
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if self.policy.lora:
            common |= {"enable_lora": True, "max_lora_rank": rank_of(self.policy), "max_loras": 1}
        if self.policy.device.type == "cpu":
            return {**common, **ON_CPU}
        share = {"gpu_memory_utilization": self.settings.memory_share, "enable_sleep_mode": self.settings.sleep}
        return {**common, **share}

    def close(self) -> None:
        if self.llm is not None:
            with contextlib.suppress(SdftError):
                self._wake()  # asleep its memory is given back already, and would be a second time
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
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": checkpoint_weights(self.policy)})
            if self.policy.device.type == "cpu":
                self.llm.apply_model(_pack_head)
            self._wake("kv_cache")
            self.asleep = False
        self._forget()

    def _push_adapter(self) -> None:
        """The adapter's files under an id that no earlier version had: vLLM caches adapters by their id."""
        from vllm.lora.request import LoRARequest

        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix="sdft-adapter-", dir=memory_folder())
        self.pushes += 1
        place = Path(self.folder.name) / str(self.pushes)
        save_adapter(self.policy, place)
        before, self.adapter = self.adapter, LoRARequest(f"sdft-{self.pushes}", self.pushes, str(place))
        if before is not None:
            self.llm.llm_engine.remove_lora(before.lora_int_id)
            shutil.rmtree(before.lora_path)
        if not self.llm.llm_engine.add_lora(self.adapter):
            raise SdftError(f"vLLM did not take version {self.version} of the adapter")

    def _forget(self) -> None:
        """Keys and values of other weights are of no use, and equal calls must find equal caches."""
        if self.llm.reset_prefix_cache() is False:  # older releases say nothing
            raise SdftError("vLLM did not reset its prefix cache", "this is a fault of the engine: start the run again")

    # sleep ------------------------------------------------------------------------------------------------------

    def _wake(self, *tags: str) -> None:
        if self.asleep:
            _release()  # what torch keeps for the trainer's next pass is what vLLM needs now
            try:
                self.llm.wake_up(list(tags) or None)
            except RuntimeError as error:
                raise SdftError(
                    f"vLLM could not wake up beside the model that trains: {str(error).splitlines()[0]}",
                    "lower engine.memory_share, or what training holds: train.optimizer=adamw8bit, lora.rank",
                ) from error
            self.asleep = bool(tags)

    def _sleep(self) -> None:
        """Level 2 throws the weights away, for the trainer has them; level 1 keeps an adapter's base, which is not
        handed over."""
        if self.sleeps:
            self.llm.sleep(level=1 if self.policy.lora else 2)
            self.asleep = True

    # asking -----------------------------------------------------------------------------------------------------

    def sample(
        self, prompts: Sequence[list[int]], sampler: Sampler, max_new_tokens: int, seed: int, greedy: bool = False
    ) -> list[Rollout]:
        if self.asleep:
            self._update()
        self._forget()
        rollouts = super().sample(prompts, sampler, max_new_tokens, seed, greedy)
        self._sleep()
        return rollouts

    def _ask(self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]]) -> list[Generated]:
        return [_answer(out.outputs[0]) for out in self._generate(prompts, params)]

    def _read(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        one = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0}
        found = self._generate(sequences, [one] * len(sequences))
        return [
            [place[token].logprob for token, place in zip(ids[1:], out.prompt_logprobs[1:], strict=True)]
            for ids, out in zip(sequences, found, strict=True)
        ]

    def _generate(self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]]) -> list[Any]:
        from vllm import SamplingParams

        asked = [{"prompt_token_ids": ids} for ids in prompts]
        how = [SamplingParams(**given, detokenize=False) for given in params]
        done: list[Any] = self.llm.generate(asked, how, use_tqdm=False, lora_request=self.adapter)
        return done


def _answer(out: Any) -> Generated:
    ids = list(out.token_ids)
    logprobs = [place[token].logprob for token, place in zip(ids, out.logprobs or (), strict=True)]
    return Generated(ids, logprobs, str(out.finish_reason))


def _pack_head(model: Any) -> None:
    """vLLM's CPU build multiplies by a packed copy of the output head, and does not pack anew where the head is tied to
    the embeddings: the update loads those, and nothing into the head itself."""
    head = getattr(model, "lm_head", None)
    if head is not None and hasattr(head, "cpu_linear"):
        head.quant_method.process_weights_after_loading(head)


def _release() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


ENGINE = ColocatedEngine
