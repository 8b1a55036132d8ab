"""Recorder: stores every response before anything is done with it, and settles those that are errors."""

from __future__ import annotations

import json

from sdft_cli.errors import SdftError, UsageError
from sdft_cli.llm import responses
from sdft_cli.llm.http_client import HttpResponse
from sdft_cli.llm.parameters import SupportedParameters
from sdft_cli.llm.progress import Progress
from sdft_cli.llm.reply_store import ReplyStore, StoredResponse
from sdft_cli.llm.responses import ApiError
from sdft_cli.llm.types import REFUSED, RESUME_HINT, Pending, Reply


class Recorder:
    """Records the responses of the endpoint at ``address``."""

    def __init__(self, address: str, store: ReplyStore, parameters: SupportedParameters, progress: Progress):
        self.address, self.store, self.parameters, self.progress = address, store, parameters, progress

    def record(self, response: HttpResponse, pending: Pending) -> list[Reply]:
        """Store a response with the replies in it, and return these; raises `ApiError` if it has none."""
        samples = pending.request.samples
        try:
            replies = responses.read(response, pending.request)
        except ApiError:
            self._store(pending, response, {})
            raise
        written = {sample: reply for sample, reply in zip(samples, replies, strict=False) if reply}
        self._store(pending, response, written)
        if len(replies) < len(samples):
            self._drop("n", "the endpoint ignores n; requesting one sample at a time")
        self.progress.replied(list(written.values()))
        return list(written.values())

    def settle(self, error: ApiError, pending: Pending, last: bool = False) -> bool:
        """Whether the prompt is settled by this error: refused for good, or empty even at the ``last`` attempt.

        If not, the request is to be sent again. Raises `UsageError` or `SdftError` for an error that ends the run.
        """
        self.progress.usage.errors += 1
        if error.remedy == responses.ABORT:
            raise _fatal(self.address, error)
        if error.remedy == responses.DROP_PARAMETER:
            self._drop(error.parameter, f"the endpoint does not take {error.parameter}; going on without it")
        elif error.remedy == responses.SKIP:
            self._settle_with(Reply(error.what, REFUSED), error, pending)
            return True
        elif last and error.what == responses.EMPTY:
            self._settle_with(Reply(""), error, pending)
            return True
        else:
            self.progress.note_once(f"trying again after: {error.what}", topic=error.kind)
        return False

    def _settle_with(self, reply: Reply, error: ApiError, pending: Pending) -> None:
        replies = dict.fromkeys(pending.request.samples, reply)
        request = json.dumps(pending.request.body())
        self.store.add(StoredResponse(pending.digest, request, "settled", error.what, replies))

    def _store(self, pending: Pending, response: HttpResponse, replies: dict[int, Reply]) -> None:
        status, request = str(response.status) if response.status else "none", json.dumps(pending.request.body())
        self.store.add(StoredResponse(pending.digest, request, status, response.body, replies))

    def _drop(self, parameter: str, note: str) -> None:
        self.parameters.drop(parameter)
        self.progress.note_once(note)


def _fatal(address: str, error: ApiError) -> SdftError:
    """The error for the user if sending the request again would not help."""
    hints = {
        "status 401": "check the key: --api-key-env NAME or --api-key-file FILE",
        "status 403": "check the key and its permissions: --api-key-env NAME or --api-key-file FILE",
        "status 404": "check --base-url (it usually ends with /v1) and the model's name",
        "status 429": f"the account has no money left; {RESUME_HINT}",
    }
    kind = SdftError if error.kind == "status 429" else UsageError
    return kind(f"{address} refuses the request: {error.what}", hints.get(error.kind, RESUME_HINT))
