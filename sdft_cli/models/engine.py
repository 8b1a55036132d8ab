"""The contract of engines, which sample completions of a policy: the files of ``engines/``, and plug-ins.

An engine's file defines ``ENGINE``, a class (`EngineClass`) whose instances are an `Engine`::

    class MyEngine:
        name = "my-engine"    # as in the recipe's engine.name; for a file of engines/, the file's name with dashes

        def __init__(self, policy, settings): ...
        def sample(self, prompts, sampler, max_new_tokens, seed, greedy=False, rows=None): ...
        def sync(self): ...
        def close(self): ...

    ENGINE = MyEngine

That is what the contract of `ENGINES` asks for. It may have

* a static method ``check(settings)`` (`Checked`), called before a model is loaded, which raises `UsageError` for what
  the engine needs and does not find: a package, an address, a setting;
* an attribute ``facts`` (`Reporting`): `EngineFacts`, which are logged with every step;
* an attribute ``one_process = True``, where it cannot be one engine on each of several processes;
* an attribute ``decoder`` (`Deciding`): how it decodes the model that it was given, which a run says and records.

An engine whose ``sample`` knows no ``rows`` serves as well (`takes_rows`), where a whole draw is one call.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypedDict, runtime_checkable

from sdft_cli.contracts import Contract
from sdft_cli.errors import shown
from sdft_cli.plugins import Room
from sdft_cli.types import Rollout

if TYPE_CHECKING:  # so that the contract can be read without torch
    from sdft_cli.config.recipe import EngineSettings, Sampler
    from sdft_cli.models.policy import Policy


class EngineFacts(TypedDict, total=False):
    """What an engine reports of itself for a step row (`records.StepFacts`).

    ``sync_gap`` is the greatest difference (nats) between its log-probs and the trainer's after the last weight update,
    ``max_batch`` the rows that it samples together, once memory has made it lower the setting.
    """

    sync_gap: float
    max_batch: int


class Engine(Protocol):
    """Samples completions of ``policy``, the one it was made for: token ids in, token ids out."""

    name: str
    policy: Policy

    def sample(
        self,
        prompts: Sequence[list[int]],
        sampler: Sampler,
        max_new_tokens: int,
        seed: int,
        greedy: bool = False,
        rows: Sequence[int] | None = None,
    ) -> list[Rollout]:
        """One rollout per prompt, in their order, with log-probs under the distribution that was sampled from.

        ``seed`` names a draw, and ``rows`` are the numbers of the prompts in it: 0, 1, … unless given, each once, below
        2^63. Random numbers are a function of (seed, row, position in the completion). So the rows of a draw get the
        same ones whether they are asked for together, in parts or in another order, and then the same tokens, but for
        the rounding of logits; a prompt that is repeated in a draw gets others under each of its numbers.

        ``greedy`` takes the likeliest token, whatever ``sampler`` says. Raises `SdftError` where sampling fails.
        """
        ...

    def sync(self) -> int:
        """The policy's weights have changed: use the new ones from now on; returns their version, counted from 0."""
        ...

    def close(self) -> None:
        """Free what the engine holds: memory, folders, connections. It is not used again; may be called twice."""
        ...


class EngineClass(Protocol):
    """What ``ENGINE`` is: called with a policy and the recipe's engine settings, it gives an `Engine`."""

    name: str

    def __call__(self, policy: Policy, settings: EngineSettings) -> Engine: ...


@runtime_checkable
class Checked(Protocol):
    """An ``ENGINE`` that checks, before a model is loaded, whether it can run."""

    def check(self, settings: EngineSettings) -> None:
        """Raise `UsageError` for what the engine needs and does not find."""
        ...


@runtime_checkable
class Reporting(Protocol):
    """An engine that reports `EngineFacts`."""

    facts: EngineFacts


def _keep_policy(_: object, engine: Engine, policy: Policy, *__: object) -> None:
    """A plug-in's engine that does not keep its policy gets it."""
    if not hasattr(engine, "policy"):
        engine.policy = policy


def _rollouts(result: object, engine: Engine, prompts: Sequence[list[int]], *_: object, **__: object) -> object:
    """What a plug-in's ``sample`` must give: a rollout per prompt, of ids that its policy's model has."""
    if not isinstance(result, list) or not all(isinstance(rollout, Rollout) for rollout in result):
        raise ValueError(f"a list of Rollout (sdft_cli.types.Rollout), not {shown(result)}")
    if len(result) != len(prompts):
        raise ValueError(f"a rollout for each of {len(prompts)} prompts, not {len(result)}")
    ids_there = range(engine.policy.core.get_input_embeddings().weight.shape[0])
    for rollout in result:
        if strange := [i for i in rollout.ids if type(i) is not int or i not in ids_there]:
            raise ValueError(f"rollouts of ids from 0 to {ids_there[-1]}, not {shown(strange[0])}")
        if len(rollout.ids) != len(rollout.logprobs):
            raise ValueError(f"a log-prob for each id, not {len(rollout.logprobs)} for {len(rollout.ids)}")
    return result


@runtime_checkable
class Deciding(Protocol):
    """An engine that has chosen among several ways to decode; ``decoder`` names it, and why no faster one was right."""

    decoder: str


def takes_rows(engine: Engine) -> bool:
    """Whether ``sample`` takes ``rows``, by name: an engine that is not told them cannot draw in parts what it would
    have drawn in one call."""
    return "rows" in inspect.signature(engine.sample).parameters


def numbered(prompts: Sequence[list[int]], rows: Sequence[int] | None) -> Sequence[int]:
    """``rows``, or 0, 1, … for None; ValueError for numbers that are not those of so many rows."""
    if rows is None:
        return range(len(prompts))
    if len(rows) != len(prompts) or len(set(rows)) != len(rows) or min(rows, default=0) < 0:
        raise ValueError(f"{len(prompts)} prompts and rows {shown(list(rows))}: each prompt has a number of its own")
    return rows


def row_seed(seed: int, row: int) -> int:
    """A 63-bit seed for row ``row`` of the draw with ``seed``."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{row}".encode()).digest()[:8], "big") >> 1


def sample_rows(
    engine: Engine,
    prompts: Sequence[list[int]],
    sampler: Sampler,
    max_new_tokens: int,
    seed: int,
    rows: Sequence[int] | None,
    greedy: bool = False,
) -> list[Rollout]:
    """Rows ``rows`` of the draw with ``seed``; a whole draw for None.

    Where an engine takes no ``rows``, the call is a draw of its own, with a seed made of ``seed`` and the first row:
    what it gives then depends on which rows are asked for together.
    """
    if rows is None or takes_rows(engine):
        named = {} if rows is None else {"rows": rows}
        return engine.sample(prompts, sampler, max_new_tokens, seed, greedy, **named)
    return engine.sample(prompts, sampler, max_new_tokens, row_seed(seed, rows[0]) if rows else seed, greedy)


def described(engine: Engine) -> str:
    """The engine's name, and how it decodes where it says so."""
    return f"{engine.name}, {engine.decoder}" if isinstance(engine, Deciding) else engine.name


ENGINES: Room[EngineClass] = Room(
    "engine",
    Contract(
        (type,),
        {
            "__init__": ("policy", "settings"),
            "sample": ("prompts", "sampler", "max_new_tokens", "seed"),
            "sync": (),
            "close": (),
        },
        "class MyEngine: name = 'my-engine' …, then ENGINE = MyEngine; CONTRIBUTING.md, 'Add an engine'",
        results={"__init__": _keep_policy, "sample": _rollouts},
        may_have=("check",),
    ),
    folder="engines",
)
