"""Changes of a request that a model's endpoint asked for: done without what it refuses, and remembered.

A change is named after the parameter that is left out (``seed``), or is one of those in `llm.refused_parameters`:
temperature 0 becomes almost 0, system texts go into the user's turn, ``max_tokens`` is called ``max_completion_tokens``
or is at most a number, the reply is streamed. What an endpoint has refused once is not sent to it again, in later runs
either.
"""

from __future__ import annotations

import json

from sdft_cli.llm.refused_parameters import GREEDY, LIMIT, STREAMING, SYSTEM
from sdft_cli.llm.store_file import StoreFile
from sdft_cli.llm.types import ModelId, Pending
from sdft_cli.messages import merged_system
from sdft_cli.types import Json

#: Stands for temperature 0 where that is refused: the likeliest token wins unless another is nearly as likely.
ALMOST_GREEDY = 0.01
#: Changes that cannot change what a model replies.
_HARMLESS = ("n", STREAMING, "stream_options", "max_tokens", "stop", "user", "metadata", "store")
_TEXTS = {
    STREAMING: "the endpoint only streams; its replies are streamed from now on",
    SYSTEM: "the endpoint takes no system messages; their text goes into the user's turn",
    GREEDY: f"the endpoint takes no temperature of 0; going on with {ALMOST_GREEDY}",
    "n": "the endpoint writes one sample per request; requesting one at a time",
    "max_tokens": "the endpoint does not take max_tokens; going on with max_completion_tokens",
}


class SupportedParameters:
    """Which parameters a model's endpoint takes; builds request bodies accordingly."""

    def __init__(self, file: StoreFile, model_id: ModelId):
        self.file, self.model = file, json.dumps(model_id)
        rows = file.select("SELECT parameter FROM unsupported WHERE teacher = ?", self.model)
        self.unsupported = {str(name) for (name,) in rows}

    @property
    def left_out(self) -> list[str]:
        """The changes that may change replies, for whoever reads what was made of them."""
        return sorted(name for name in self.unsupported if name not in _HARMLESS)

    def supports(self, parameter: str) -> bool:
        return parameter not in self.unsupported

    def drop(self, parameter: str) -> None:
        """The endpoint does not take it: make this change of every request from now on."""
        self.unsupported.add(parameter)
        with self.file.transaction() as base:
            base.execute("INSERT INTO unsupported VALUES (?, ?) ON CONFLICT DO NOTHING", (self.model, parameter))

    def body(self, pending: Pending) -> dict[str, Json]:
        """The request body. Its seed depends on prompt and sample only, so that a lost reply can be had again."""
        body, samples = pending.request.body(), pending.request.samples
        body.setdefault("seed", int(pending.digest[:7], 16) + samples[0])
        if len(samples) > 1:
            body["n"] = len(samples)
        for parameter in sorted(self.unsupported, key=lambda name: name != STREAMING):
            body = changed(body, parameter)
        return body


def changed(body: dict[str, Json], parameter: str) -> dict[str, Json]:
    """The body with that change; equal to ``body`` if it has been made already."""
    body = dict(body)
    if parameter == STREAMING:
        body |= {"stream": True, "stream_options": {"include_usage": True}} if not body.get("stream") else {}
    elif parameter == SYSTEM:
        body["messages"] = merged_system(body["messages"])
    elif parameter == GREEDY:
        body |= {"temperature": ALMOST_GREEDY} if body.get("temperature") == 0 else {}
    elif parameter == "max_tokens":
        if "max_tokens" in body:
            body["max_completion_tokens"] = body.pop("max_tokens")
    elif parameter.startswith(LIMIT):
        limit = int(parameter.removeprefix(LIMIT))
        body |= {name: min(body[name], limit) for name in ("max_tokens", "max_completion_tokens") if name in body}
    else:
        body.pop(parameter, None)
        if parameter == "logprobs":
            body.pop("top_logprobs", None)
    return body


def change_text(parameter: str) -> str:
    """The change in words, for the user."""
    if parameter.startswith(LIMIT):
        return f"the endpoint writes at most {parameter.removeprefix(LIMIT)} tokens per reply; requesting no more"
    return _TEXTS.get(parameter, f"the endpoint does not take {parameter}; going on without it")
