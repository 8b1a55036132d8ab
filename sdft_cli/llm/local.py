"""A local model as the teacher: no network, no key, no cost; the way that works offline.

All prompts go forward in rounds, a round in batches of fixed make-up; a batch is stored whole or not at all. So a run
that was killed and goes on writes what an uninterrupted one would have written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sdft_cli.config.locations import locate
from sdft_cli.config.recipe import EngineSettings, Runtime, Sampler
from sdft_cli.errors import choose
from sdft_cli.llm.reply_store import Store
from sdft_cli.llm.types import (
    LENGTH,
    LOCAL,
    REFUSED,
    STOP,
    Outcome,
    Pursuit,
    Reply,
    Request,
    TeacherOptions,
    Told,
    cut,
    step,
)
from sdft_cli.llm.usage import Tally
from sdft_cli.models.engine import ENGINES

if TYPE_CHECKING:
    from sdft_cli.models.pretrained import Policy
    from sdft_cli.types import Rollout

#: What ``--send`` may hold for a local model.
KNOWN = ("top_p", "top_k", "stop")


class _Wanted(NamedTuple):
    """One sample that is asked for; ``digest`` is its request's."""

    digest: str
    sample: int
    request: Request


class LocalTeacher:
    """See `types.LanguageModel`."""

    def __init__(self, options: TeacherOptions, store: Store, tally: Tally):
        for name in options.send:
            if name not in KNOWN:
                raise choose("key of --send for a local model", name, KNOWN)
        self.options, self.store, self.tally = options, store, tally
        self.named = named(options)

    @cached_property
    def policy(self) -> Policy:
        """The model; loaded when first needed, for all replies may be stored."""
        from sdft_cli.models import pretrained

        return pretrained.load(locate(self.options.local or ""), Runtime())

    @cached_property
    def engine(self) -> Any:
        return ENGINES.get("transformers")(self.policy, EngineSettings(max_batch=self.options.concurrency))

    @cached_property
    def window(self) -> int:
        """The most tokens that the model takes."""
        config = self.policy.core.config.get_text_config()  # type: ignore[operator, union-attr]
        return int(getattr(config, "max_position_embeddings", None) or 1 << 30)

    def run(self, pursuits: Sequence[Pursuit], told: Told) -> list[Outcome]:
        """See `types.LanguageModel`."""
        at: list[Request | Outcome] = [step(pursuit, None) for pursuit in pursuits]
        while asking := [i for i, state in enumerate(at) if isinstance(state, Request)]:
            requests = [state for state in at if isinstance(state, Request)]
            for i, replies in zip(asking, self._round(requests), strict=True):
                state = at[i] = step(pursuits[i], replies)
                if isinstance(state, Outcome):
                    told(state)
        return [state for state in at if isinstance(state, Outcome)]

    def _round(self, requests: Sequence[Request]) -> list[list[Reply]]:
        """The replies to each request, all of its samples."""
        wanted = (_Wanted(r.digest(self.named), sample, r) for r in requests for sample in r.samples)
        once = list({(w.digest, w.sample): w for w in wanted}.values())
        size = self.options.concurrency
        for first in range(0, len(once), size):
            self._batch(once[first : first + size])
        return [self.store.replies(r.digest(self.named), r.samples) or [] for r in requests]

    def _batch(self, batch: Sequence[_Wanted]) -> None:
        """Write what is not stored yet, and store it in one transaction."""
        left = [w for w in batch if self.store.find(w.digest, w.sample) is None]
        self.tally.stored += len(batch) - len(left)
        if not left:
            return
        prompts = [self.policy.chat.prompt_ids(w.request.messages) for w in left]
        fits = [i for i, ids in enumerate(prompts) if len(ids) < self.window]
        written = dict(zip(fits, self._sample([left[i] for i in fits], [prompts[i] for i in fits]), strict=True))
        replies = [written.get(i) or self._too_long(ids) for i, ids in enumerate(prompts)]
        self.store.keep_all(
            [
                (w.digest, json.dumps(w.request.body()), "local", reply.text, {w.sample: reply})
                for w, reply in zip(left, replies, strict=True)
            ]
        )
        self.tally.requests += len(fits)
        self.tally.written(replies)

    def _too_long(self, ids: list[int]) -> Reply:
        return Reply(f"{len(ids)} tokens, the model's window is {self.window}", REFUSED)

    def _sample(self, left: Sequence[_Wanted], prompts: list[list[int]]) -> list[Reply]:
        """One reply each; what the longest prompt leaves of the window is the limit of all."""
        if not left:
            return []
        request = left[0].request  # all requests of a run are sampled alike
        sampler = Sampler(temperature=request.temperature or 1.0, **_of(request, "top_p", "top_k"))
        limit = min(request.max_tokens, self.window - max(map(len, prompts)))
        rollouts = self.engine.sample(prompts, sampler, limit, _seed(left), greedy=request.temperature == 0)
        return [self._reply(rollout, request) for rollout in rollouts]

    def _reply(self, rollout: Rollout, request: Request) -> Reply:
        text, beyond = cut(self.policy.chat.decode(rollout.ids), request.stops)
        finish = STOP if beyond or rollout.finish == "stop" else LENGTH
        return Reply(text, finish, len(rollout.prompt_ids), len(rollout.ids))


def named(options: TeacherOptions) -> dict[str, Any]:
    """See `types.LanguageModel`: a folder by its name and a digest of its files, a model of the hub by its id alone."""
    name = options.local or "micro"
    folder = Path(locate(name))
    if not folder.is_dir():
        return {"model": LOCAL + name}
    return {"model": LOCAL + ("micro" if name == "micro" else folder.resolve().name), "sha256": _fingerprint(folder)}


def _fingerprint(folder: Path) -> str:
    """A digest of every file that makes the model: other weights under the same name are another teacher."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".jinja", ".bin")):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _of(request: Request, *names: str) -> dict[str, Any]:
    return {name: request.more[name] for name in names if name in request.more}


def _seed(batch: Sequence[_Wanted]) -> int:
    """A seed that belongs to these samples of these prompts."""
    digest = hashlib.sha256("".join(f"{w.digest}/{w.sample};" for w in batch).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
