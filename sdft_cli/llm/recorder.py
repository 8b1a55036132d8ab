"""Recorder: stores every response before anything is done with it, and settles those that are errors."""

from __future__ import annotations

import json
from dataclasses import replace

from sdft_cli.errors import SdftError, UsageError
from sdft_cli.llm import responses
from sdft_cli.llm.api_key import DEFAULT_VARIABLE
from sdft_cli.llm.http_client import HttpClient, HttpResponse
from sdft_cli.llm.parameters import SupportedParameters, change_text
from sdft_cli.llm.progress import Progress
from sdft_cli.llm.reply_store import ReplyStore, StoredResponse
from sdft_cli.llm.responses import ApiError
from sdft_cli.llm.types import REFUSED, RESUME_HINT, Pending, Reply, Request

_ESTIMATED = "the endpoint does not count tokens: they are estimated from the texts, rather too high"

_CUT = "the endpoint counts far fewer tokens than the prompts have: does it cut them to its context?"
#: Bytes of a prompt per token above which it has probably been cut; no language has so many.
_BYTES_PER_TOKEN, _LONG = 16, 4000


class Recorder:
    """Records the responses of the endpoint that ``client`` talks to."""

    def __init__(self, client: HttpClient, store: ReplyStore, parameters: SupportedParameters, progress: Progress):
        self.client, self.store, self.parameters, self.progress = client, store, parameters, progress

    def record(self, response: HttpResponse, pending: Pending) -> list[Reply]:
        """Store a response with the replies in it, and return these; raises `ApiError` if it has none."""
        samples = pending.request.samples
        try:
            replies = responses.read(response, self._expected(pending.request))
        except ApiError as error:
            refused = _refused(error, pending) if error.remedy == responses.SKIP else {}
            self._store(pending, response, refused)
            raise
        written = {sample: reply for sample, reply in zip(samples, replies, strict=False) if reply}
        self._store(pending, response, written)
        if len(replies) < len(samples):
            self._drop("n", "the endpoint ignores n; requesting one sample at a time")
        if any(reply.estimated for reply in written.values()):
            self.progress.note_once(_ESTIMATED)
        elif _may_be_cut(pending.request, list(written.values())):
            self.progress.note_once(_CUT)
        self.progress.replied(list(written.values()))
        return list(written.values())

    def settle(self, error: ApiError, pending: Pending, last: bool = False) -> bool:
        """Whether the prompt is settled by this error: refused for good, or without a usable reply even at the ``last``
        attempt.

        If not, the request is to be sent again. Raises `UsageError` or `SdftError` for an error that ends the run.
        """
        self.progress.usage.errors += 1
        if error.remedy == responses.ABORT:
            raise self.fatal(error)
        if error.remedy == responses.DROP_PARAMETER:
            self._drop(error.parameter, change_text(error.parameter))
        elif error.remedy in (responses.SKIP, responses.PUT_OFF):
            self.leave_out(error, pending)
            return True
        elif last and error.reply is not None:
            self._settle_with(dict.fromkeys(pending.request.samples, error.reply), error, pending)
            return True
        else:
            self.progress.note_once(f"trying again after: {error.what}", topic=error.kind)
        return False

    def leave_out(self, error: ApiError, pending: Pending) -> None:
        """Settle a prompt as refused: it is not asked again, and whoever asked leaves it out."""
        self.progress.note_once(f"a prompt is left out ({error.about or 'refused'}): {error.what}", topic=error.about)
        self._settle_with(_refused(error, pending), error, pending)

    def has_answers(self) -> bool:
        """Whether the store has a reply with text from before."""
        return self.store.has_answers()

    def refused_alone(self, pending: Pending, times: int) -> bool:
        """See `ReplyStore.refused_alone`."""
        return self.store.refused_alone(pending.digest, times)

    def fails_alone(self, pending: Pending, times: int) -> bool:
        """See `ReplyStore.fails_alone`."""
        return self.store.fails_alone(pending.digest, times)

    def fatal(self, error: ApiError) -> SdftError:
        """The error for the user if sending the request again would not help."""
        hint, address = error.about, self.client.address
        if error.kind in ("status 401", "status 403") and self.client.withheld:
            hint = f"{DEFAULT_VARIABLE} is only for OpenAI's own host: name this one's key with --api-key-env"
        elif error.kind == "status 401" and self.client.not_set:
            hint = f"{self.client.not_set}, which --api-key-env names, is not set: export it"
        elif error.kind == "status 403" and not hint:
            hint = "check the key and its permissions: --api-key-env NAME or --api-key-file FILE"
        passes = RESUME_HINT in hint
        kind = SdftError if passes else UsageError
        refused = error.kind.startswith(("status 3", "status 4", "status 5")) or "error with status" in error.kind
        verb = "refuses the request" if refused else "cannot be used"
        return kind(f"{address} {verb}: {error.what}", hint or RESUME_HINT)

    def _expected(self, request: Request) -> Request:
        """The request as far as a response has to be to it: without log-probabilities, if the endpoint refuses them."""
        if self.parameters.supports("logprobs"):
            return request
        return replace(request, extra={key: value for key, value in request.extra.items() if key != "logprobs"})

    def _settle_with(self, replies: dict[int, Reply], error: ApiError, pending: Pending) -> None:
        request = json.dumps(pending.request.body())
        self.store.add(StoredResponse(pending.digest, request, "settled", error.what, replies))

    def _store(self, pending: Pending, response: HttpResponse, replies: dict[int, Reply]) -> None:
        status, request = str(response.status) if response.status else "none", json.dumps(pending.request.body())
        self.store.add(StoredResponse(pending.digest, request, status, response.body, replies))

    def _drop(self, parameter: str, note: str) -> None:
        self.parameters.drop(parameter)
        self.progress.note_once(note)


def _may_be_cut(request: Request, replies: list[Reply]) -> bool:
    """Whether the server has counted too few tokens for the whole of a long prompt (Ollama cuts them silently)."""
    size = sum(len(message["content"].encode()) for message in request.messages)
    read = sum(reply.prompt_tokens for reply in replies)
    return size > _LONG and size > _BYTES_PER_TOKEN * read


def _refused(error: ApiError, pending: Pending) -> dict[int, Reply]:
    """A refused reply to every sample: whether the prompt can be answered does not depend on the sample."""
    about = f"{error.about}: " if error.about and error.remedy == responses.SKIP else ""
    return dict.fromkeys(pending.request.samples, Reply(f"{about}{error.what}", REFUSED))
