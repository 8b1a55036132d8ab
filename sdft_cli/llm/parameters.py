"""Parameters of a request body that some endpoints do not take: what this one refused is remembered and left out."""

from __future__ import annotations

import json

from sdft_cli.llm.store_file import StoreFile
from sdft_cli.llm.types import ModelId, Pending
from sdft_cli.types import Json

#: Parameters that can be left out, or written another way.
OPTIONAL = ("seed", "n", "max_tokens")


class SupportedParameters:
    """Which of the `OPTIONAL` parameters a model's endpoint takes; builds request bodies accordingly."""

    def __init__(self, file: StoreFile, model_id: ModelId):
        self.file, self.model = file, json.dumps(model_id)
        rows = file.select("SELECT parameter FROM unsupported WHERE teacher = ?", self.model)
        self.unsupported = {str(name) for (name,) in rows}

    def supports(self, parameter: str) -> bool:
        return parameter not in self.unsupported

    def drop(self, parameter: str) -> None:
        """The endpoint does not take it: leave it out from now on."""
        self.unsupported.add(parameter)
        with self.file.transaction() as base:
            base.execute("INSERT INTO unsupported VALUES (?, ?) ON CONFLICT DO NOTHING", (self.model, parameter))

    def body(self, pending: Pending) -> dict[str, Json]:
        """The request body. Its seed depends on prompt and sample only, so that a lost reply can be had again."""
        body, samples = pending.request.body(), pending.request.samples
        if not self.supports("max_tokens"):
            body["max_completion_tokens"] = body.pop("max_tokens")
        if self.supports("seed"):
            body.setdefault("seed", int(pending.digest[:7], 16) + samples[0])
        if len(samples) > 1 and self.supports("n"):
            body["n"] = len(samples)
        return body
