"""A local model: no network, no key, no cost, works offline.

All exchanges advance in rounds, a round in batches; a batch is stored whole or not at all. What is sampled for a
request is a function of that request and the sample's number, whatever else is in the batch. So a run that was killed
and started again, also with another ``--concurrency``, writes what an uninterrupted one would have written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import EngineSettings, Runtime, Sampler
from sdft_cli.errors import choose
from sdft_cli.llm.progress import Progress
from sdft_cli.llm.reply_store import ReplyStore, StoredResponse
from sdft_cli.llm.types import (
    LENGTH,
    LOCAL,
    REFUSED,
    STOP,
    Callback,
    Exchange,
    ModelId,
    PromptResult,
    Reply,
    Request,
    TeacherOptions,
    advance,
    cut_at_stop,
)
from sdft_cli.models.chat_template import TemplateRefusal
from sdft_cli.models.engine import ENGINES
from sdft_cli.types import Json

if TYPE_CHECKING:
    from sdft_cli.models.engine import Engine
    from sdft_cli.models.policy import Policy
    from sdft_cli.types import Rollout

#: The keys of ``--send`` that a local model understands.
SUPPORTED = ("top_p", "top_k", "stop")


class _Sample(NamedTuple):
    """One sample to be written; ``digest`` is that of its request."""

    digest: str
    number: int
    request: Request


class LocalModel:
    """See `language_model.LanguageModel`."""

    def __init__(self, options: TeacherOptions, store: ReplyStore, progress: Progress):
        for name in options.send:
            if name not in SUPPORTED:
                raise choose("key of --send for a local model", name, SUPPORTED)
        self.options, self.store, self.progress = options, store, progress
        self.model_id = local_model_id(options)

    @property
    def left_out(self) -> list[str]:
        """See `language_model.LanguageModel`."""
        return []

    @cached_property
    def policy(self) -> Policy:
        """The model; loaded when first needed, since all replies may be stored."""
        from sdft_cli.models import pretrained

        return pretrained.load(locate(self.options.local or ""), Runtime())

    @cached_property
    def engine(self) -> Engine:
        settings = EngineSettings(max_batch=self.options.concurrency)
        engine: Engine = ENGINES.get("transformers")(self.policy, settings)
        return engine

    def run(self, exchanges: Sequence[Exchange], on_finished: Callback) -> list[PromptResult]:
        """See `language_model.LanguageModel`."""
        states: list[Request | PromptResult] = [advance(exchange, None) for exchange in exchanges]
        while unfinished := [i for i, state in enumerate(states) if isinstance(state, Request)]:
            requests = [state for state in states if isinstance(state, Request)]
            for i, replies in zip(unfinished, self._round(requests), strict=True):
                state = states[i] = advance(exchanges[i], replies)
                if isinstance(state, PromptResult):
                    on_finished(state)
        return [state for state in states if isinstance(state, PromptResult)]

    def _round(self, requests: Sequence[Request]) -> list[list[Reply]]:
        """The replies to each request, all of its samples."""
        samples = (_Sample(r.digest(self.model_id), number, r) for r in requests for number in r.samples)
        distinct = list({(s.digest, s.number): s for s in samples}.values())
        size = self.options.concurrency
        for first in range(0, len(distinct), size):
            self._batch(distinct[first : first + size])
        return [self.store.replies(r.digest(self.model_id), r.samples) or [] for r in requests]

    def _batch(self, batch: Sequence[_Sample]) -> None:
        """Write the samples that are not stored yet, and store them in one transaction."""
        missing = [s for s in batch if self.store.find(s.digest, s.number) is None]
        self.progress.usage.stored += len(batch) - len(missing)
        if not missing:
            return
        prompts = [self._prompt(s.request) for s in missing]
        fitting = {i: ids for i, ids in enumerate(prompts) if not isinstance(ids, Reply)}
        sampled = self._sample([missing[i] for i in fitting], list(fitting.values()))
        written = dict(zip(fitting, sampled, strict=True))
        replies = [prompt if isinstance(prompt, Reply) else written[i] for i, prompt in enumerate(prompts)]
        self.store.add(
            *(
                StoredResponse(s.digest, json.dumps(s.request.body()), "local", reply.text, {s.number: reply})
                for s, reply in zip(missing, replies, strict=True)
            )
        )
        self.progress.usage.requests += len(fitting)
        self.progress.replied(replies)

    def _prompt(self, request: Request) -> list[int] | Reply:
        """The prompt's ids; a reply that says why there are none to sample from."""
        try:
            ids = self.policy.chat.prompt_ids(request.messages, tools=request.extra.get("tools"))
        except TemplateRefusal as refusal:
            return Reply(refusal.message, REFUSED)
        if len(ids) < self.policy.chat.window:
            return ids
        return Reply(f"{len(ids)} tokens, the model's window is {self.policy.chat.window}", REFUSED)

    def _sample(self, samples: Sequence[_Sample], prompts: list[list[int]]) -> list[Reply]:
        """One reply each, of as many tokens as its prompt leaves room for; those of one limit are sampled together."""
        by_limit: dict[int, list[int]] = {}
        for i, (sample, prompt) in enumerate(zip(samples, prompts, strict=True)):
            limit = min(sample.request.max_tokens, self.policy.chat.window - len(prompt))
            by_limit.setdefault(limit, []).append(i)
        replies: dict[int, Reply] = {}
        for limit, numbers in by_limit.items():
            request = samples[numbers[0]].request  # all requests of a run have the same sampling parameters
            sampler = Sampler(temperature=request.temperature or 1.0, **_extra(request, "top_p", "top_k"))
            rows = [_row(samples[i]) for i in numbers]
            asked = [prompts[i] for i in numbers]
            rollouts = self.engine.sample(asked, sampler, limit, 0, request.temperature == 0, rows)
            replies |= {i: self._reply(rollout, request) for i, rollout in zip(numbers, rollouts, strict=True)}
        return [replies[i] for i in range(len(samples))]

    def _reply(self, rollout: Rollout, request: Request) -> Reply:
        text, stopped = cut_at_stop(self.policy.chat.decode(rollout.ids), request.stops)
        finish = STOP if stopped or rollout.finish == "stop" else LENGTH
        return Reply(text, finish, len(rollout.prompt_ids), len(rollout.ids))


def local_model_id(options: TeacherOptions) -> ModelId:
    """The `ModelId` of a local model: a folder by its name and a digest of its files, a hub model by its id alone."""
    name = options.local or "micro"
    folder = Path(locate(name))
    if not folder.is_dir():
        return {"model": LOCAL + name}
    return {"model": LOCAL + ("micro" if name == "micro" else folder.resolve().name), "sha256": _fingerprint(folder)}


def _fingerprint(folder: Path) -> str:
    """A digest of all files that define the model: other weights under the same name are another model."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".jinja", ".bin")):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _extra(request: Request, *names: str) -> dict[str, Json]:
    return {name: request.extra[name] for name in names if name in request.extra}


def _row(sample: _Sample) -> int:
    """A sample's number in the one draw that all samples of all requests are."""
    digest = hashlib.sha256(f"{sample.digest}/{sample.number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
