"""Language model: what answers requests, be it a server or a local model; and the one that the options name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sdft_cli.llm.endpoint import EndpointModel
from sdft_cli.llm.http_client import endpoint_model_id
from sdft_cli.llm.local_model import LocalModel, local_model_id
from sdft_cli.llm.progress import Progress
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.types import Callback, Exchange, ModelId, PromptResult, TeacherOptions


class LanguageModel(Protocol):
    """Answers the requests of exchanges; every reply is stored before it is used."""

    model_id: ModelId

    @property
    def left_out(self) -> list[str]:
        """What requests are sent without, or otherwise than they were meant, because the model's endpoint refuses it
        (see `llm.parameters`); empty for a local model."""
        ...

    def run(self, exchanges: Sequence[Exchange], on_finished: Callback) -> list[PromptResult]:
        """The results in the order of ``exchanges``; raises `SdftError` if one of them could not be finished."""
        ...


def open_model(options: TeacherOptions, store: ReplyStore, progress: Progress) -> LanguageModel:
    """The model that ``options`` name. Nothing is loaded or sent before `LanguageModel.run` needs it."""
    kind = EndpointModel if options.local is None else LocalModel
    return kind(options, store, progress)


def model_id(options: TeacherOptions) -> ModelId:
    """The id of the model that ``options`` name; needs neither a key nor the network."""
    return endpoint_model_id(options) if options.local is None else local_model_id(options)
