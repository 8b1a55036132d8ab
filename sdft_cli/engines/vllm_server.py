"""Sampling with a vLLM server that runs by itself: on other GPUs, or on another machine that shares a folder.

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs --port 8000
    sdft train --engine vllm-server --set engine.base_url=http://localhost:8000

The development mode is what lets a server's weights be changed. They go through ``engine.weights_folder`` as a plain
model folder (``reload_weights``), for that asks nothing of where server and trainer run; vLLM's transfers over NCCL and
IPC want both of one release. An adapter needs ``--enable-lora --max-lora-rank R`` and
VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 besides, and travels as an adapter. vLLM's CPU build (0.32) needs
``--no-enable-chunked-prefill``: it dies of a request with a seed whose prompt it reads in parts.

A server is one run's at a time; that no other has changed its weights is looked at after every sampling. It is left
with the run's last weights. Requests arrive in no fixed order, so equal calls are equal but for rounding.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft_cli.config.recipe import EngineSettings, Sampler
from sdft_cli.engines._http import Missing, Server
from sdft_cli.engines._vllm import Generated, VllmEngine, base_location, memory_folder, rank_of, save_adapter
from sdft_cli.engines._weight_check import processed
from sdft_cli.errors import SdftError, UsageError

if TYPE_CHECKING:
    from sdft_cli.models.pretrained import Policy
    from sdft_cli.types import Rollout

COMPLETIONS = "/v1/completions"
#: At this temperature (the highest that a server takes) processed log-probs are far from those of the model itself.
WARM = Sampler(temperature=2.0)


class ServerEngine(VllmEngine):
    """``policy``'s weights in the server at ``settings.base_url``."""

    name = "vllm-server"

    def __init__(self, policy: Policy, settings: EngineSettings | None = None):
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.served, self.adapter = "", ""
        self.pushes = 0
        super().__init__(policy, settings)
        self._check_logprobs()

    @staticmethod
    def check(settings: EngineSettings) -> None:
        if not settings.base_url:
            raise UsageError(
                "the engine vllm-server needs an address",
                f"start one with `{command('MODEL')}` and add --set engine.base_url=http://localhost:8000",
            )
        Server(settings.base_url, 1)
        if settings.weights_folder and not os.access(settings.weights_folder, os.W_OK):
            raise UsageError(
                f"engine.weights_folder {settings.weights_folder} is no folder that can be written to",
                "name one that the server sees under the same path",
            )

    def _open(self) -> None:
        self.server = Server(self.settings.base_url or "", self.settings.max_batch)
        card = self._served(self.server.get("/v1/models"))
        self.served, self.window = card["id"], card["max_model_len"]
        self._or_restart(lambda: self.server.post("/reset_prefix_cache"))
        place = self.settings.weights_folder or memory_folder()
        self.folder = tempfile.TemporaryDirectory(prefix="sdft-weights-", dir=place)
        Path(self.folder.name).chmod(0o755)  # a server may be another user's

    def _served(self, said: Any) -> dict[str, Any]:
        """The card of the model itself (an adapter's has a parent)."""
        cards = said.get("data") if isinstance(said, dict) else None
        for card in cards if isinstance(cards, list) else []:
            if isinstance(card.get("max_model_len"), int) and not card.get("parent"):
                return dict(card)
        raise UsageError(
            f"the server at {self.server.url} is none of vLLM's: its /v1/models names no model with max_model_len",
            f"start one with `{self._command()}`",
        )

    def _command(self) -> str:
        return command(base_location(self.policy), rank_of(self.policy) if self.policy.lora else 0)

    def _or_restart(self, ask: Callable[[], Any]) -> Any:
        """The answer; an address that is not there means a server that was not started for this."""
        try:
            return ask()
        except Missing as error:
            raise UsageError(
                f"{error.message}: the server does not let its weights be changed", f"start it with `{self._command()}`"
            ) from error

    def close(self) -> None:
        if self.adapter:
            name, self.adapter = self.adapter, ""
            self._unload(name)
        if self.folder is not None:
            self.folder.cleanup()
            self.folder = None

    # weights ----------------------------------------------------------------------------------------------------

    def _push(self) -> None:
        assert self.folder is not None
        self.pushes += 1
        part = Path(self.folder.name) / f"{self.pushes}.part"
        if self.policy.lora:
            save_adapter(self.policy, part)
        else:
            self.policy.model.save_pretrained(part)  # type: ignore[operator]
        place = part.rename(part.with_suffix(""))  # under its name it is whole
        (self._load_adapter if self.policy.lora else self._load_weights)(place)
        shutil.rmtree(place)

    def _load_weights(self, place: Path) -> None:
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(place)}}
        self.server.post("/collective_rpc", body)
        self._forget()

    def _load_adapter(self, place: Path) -> None:
        before, name = self.adapter, f"sdft-{uuid.uuid4().hex[:8]}-{self.pushes}"
        body = {"lora_name": name, "lora_path": str(place)}
        self._or_restart(lambda: self.server.post("/v1/load_lora_adapter", body))
        self.adapter = name
        if before:
            self._unload(before)
        self._forget()

    def _unload(self, name: str) -> None:
        with contextlib.suppress(SdftError):  # a server that has gone has forgotten it, too
            self.server.post("/v1/unload_lora_adapter", {"lora_name": name})

    def _forget(self) -> None:
        said = self._or_restart(lambda: self.server.post("/reset_prefix_cache"))
        if isinstance(said, dict) and said.get("success") is False:
            raise SdftError(
                f"the server at {self.server.url} did not reset its prefix cache",
                "it serves others meanwhile; a server is one run's at a time",
            )

    # asking -----------------------------------------------------------------------------------------------------

    def sample(
        self, prompts: Sequence[list[int]], sampler: Sampler, max_new_tokens: int, seed: int, greedy: bool = False
    ) -> list[Rollout]:
        self._forget()
        rollouts = super().sample(prompts, sampler, max_new_tokens, seed, greedy)
        self.synced.same(self._read(self.synced.sequences))
        return rollouts

    def _ask(self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]]) -> list[Generated]:
        bodies = [{**self._body(ids), **given} for ids, given in zip(prompts, params, strict=True)]
        return [_answer(choice) for choice in self._choices(bodies)]

    def _read(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        one = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0}
        choices = self._choices([{**self._body(ids), **one} for ids in sequences])
        return [_prompt_logprobs(ids, choice) for ids, choice in zip(sequences, choices, strict=True)]

    def _body(self, ids: list[int]) -> dict[str, Any]:
        return {"model": self.adapter or self.served, "prompt": ids, "n": 1, "return_token_ids": True}

    def _choices(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for answer in self.server.post_all(COMPLETIONS, bodies):
            choices = answer.get("choices") if isinstance(answer, dict) else None
            if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
                raise SdftError(f"the server at {self.server.url} gave no completion", "it must be vLLM 0.20 or newer")
            found.append(choices[0])
        return found

    def _check_logprobs(self) -> None:
        """A client cannot say which log-probs it wants, so the first ones tell which the server gives."""
        asked = self.synced.sequences
        answers = self._ask(asked, [self._params(WARM, 1, i, greedy=False) for i in range(len(asked))])
        tokens = [answer.ids[0] for answer in answers]
        if not processed(self.policy, asked, tokens, [a.logprobs[0] for a in answers], WARM.temperature):
            self.close()
            raise UsageError(
                f"the server at {self.server.url} gives log-probs from before temperature and truncation",
                f"start it with `{self._command()}`",
            )


def command(model: str, rank: int = 0) -> str:
    """How a server is started that can be trained with; ``rank`` is an adapter's, or 0."""
    words = f"VLLM_SERVER_DEV_MODE=1 vllm serve {model} --logprobs-mode processed_logprobs"
    return f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 {words} --enable-lora --max-lora-rank {rank}" if rank else words


def _answer(choice: dict[str, Any]) -> Generated:
    ids, told = choice.get("token_ids"), choice.get("logprobs")
    if not isinstance(ids, list) or not isinstance(told, dict) or not isinstance(told.get("token_logprobs"), list):
        raise SdftError("the server gave no token ids or no log-probs", "it must be vLLM 0.20 or newer")
    return Generated(ids, told["token_logprobs"], str(choice.get("finish_reason")))


def _prompt_logprobs(ids: list[int], choice: dict[str, Any]) -> list[float]:
    told = choice.get("prompt_logprobs")
    try:
        return [float(place[str(token)]["logprob"]) for token, place in zip(ids[1:], (told or [])[1:], strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        raise SdftError("the server gave no log-probs of the prompt", "it must be vLLM 0.20 or newer") from error


ENGINE = ServerEngine
