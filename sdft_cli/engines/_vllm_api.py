"""The endpoints of a vLLM server that sampling and weight updates need, and what they answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sdft_cli.engines._http import HttpClient, NoSuchPath
from sdft_cli.engines._vllm import READ, Generated, SamplingParameters
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.types import Json

TOO_OLD = "it must be vLLM 0.20 or newer"


class VllmApi:
    """A server that is reached by ``client``; hints name ``command``, by which it should have been started.

    ``model`` is the name of the served model, ``window`` the tokens that it takes. Raises `UsageError` where the server
    is not vLLM's, or does not allow weight updates.
    """

    def __init__(self, client: HttpClient, command: str):
        self.client, self.command, self.url = client, command, client.url
        self.model, self.window = self._served(client.get("/v1/models"))
        self._development(lambda: client.post("/reset_prefix_cache"))

    def _served(self, answer: Json) -> tuple[str, int]:
        """Name and window of the model itself (an adapter's card names a parent)."""
        cards = answer.get("data") if isinstance(answer, dict) else None
        for card in cards if isinstance(cards, list) else []:
            if isinstance(card.get("max_model_len"), int) and not card.get("parent"):
                return str(card["id"]), card["max_model_len"]
        raise UsageError(
            f"the server at {self.url} is not vLLM's: its /v1/models has no model with max_model_len",
            f"start one with `{self.command}`",
        )

    def _development(self, request: Callable[[], Json]) -> Json:
        """The answer of an endpoint that a server has only if it was started for this."""
        try:
            return request()
        except NoSuchPath as error:
            raise UsageError(
                f"{error.message}: the server does not allow weight updates", f"start it with `{self.command}`"
            ) from error

    # completions ------------------------------------------------------------------------------------------------

    def generate(
        self, model: str, prompts: Sequence[list[int]], parameters: Sequence[SamplingParameters]
    ) -> list[Generated]:
        """One completion per prompt by ``model``, which may be an adapter's name."""
        return [_generated(choice) for choice in self._choices(model, prompts, parameters)]

    def prompt_logprobs(self, model: str, sequences: Sequence[list[int]]) -> list[list[float]]:
        """The log-prob of every token but the first of each sequence."""
        choices = self._choices(model, sequences, [READ] * len(sequences))
        return [_prompt_logprobs(ids, choice) for ids, choice in zip(sequences, choices, strict=True)]

    def _choices(
        self, model: str, prompts: Sequence[list[int]], parameters: Sequence[SamplingParameters]
    ) -> list[Mapping[str, Json]]:
        bodies = [
            {"model": model, "prompt": ids, "n": 1, "return_token_ids": True, **given}
            for ids, given in zip(prompts, parameters, strict=True)
        ]
        choices: list[Mapping[str, Json]] = []
        for answer in self.client.post_all("/v1/completions", bodies):
            given = answer.get("choices") if isinstance(answer, dict) else None
            if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], dict):
                raise SdftError(f"the server at {self.url} returned no completion", TOO_OLD)
            choices.append(given[0])
        return choices

    # weights ----------------------------------------------------------------------------------------------------

    def reload_weights(self, folder: Path) -> None:
        """Replace the model's weights by those of a model folder."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        self.client.post("/collective_rpc", body)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Serve the adapter in ``folder`` as ``name``."""
        body = {"lora_name": name, "lora_path": str(folder)}
        self._development(lambda: self.client.post("/v1/load_lora_adapter", body))

    def unload_adapter(self, name: str) -> None:
        """Serve it no longer."""
        with contextlib.suppress(SdftError):  # a server that is gone has no adapter either
            self.client.post("/v1/unload_lora_adapter", {"lora_name": name})

    def reset_prefix_cache(self) -> None:
        """Drop the keys and values of earlier prompts; `SdftError` where the server is in use by others."""
        answer = self._development(lambda: self.client.post("/reset_prefix_cache"))
        if isinstance(answer, dict) and answer.get("success") is False:
            raise SdftError(
                f"the server at {self.url} did not reset its prefix cache",
                "it is in use by others; a server can serve one run at a time",
            )


def _generated(choice: Mapping[str, Json]) -> Generated:
    ids, logprobs = choice.get("token_ids"), choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(ids, list) or not isinstance(values, list):
        raise SdftError("the server returned no token ids or no log-probs", TOO_OLD)
    return Generated(ids, values, str(choice.get("finish_reason")))


def _prompt_logprobs(ids: list[int], choice: Mapping[str, Json]) -> list[float]:
    by_position = choice.get("prompt_logprobs") or []
    try:
        return [float(tokens[str(t)]["logprob"]) for t, tokens in zip(ids[1:], by_position[1:], strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        raise SdftError("the server returned no log-probs of the prompt", TOO_OLD) from error
