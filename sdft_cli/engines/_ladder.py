"""The decoder of a model: the fastest one that gives what plain forward passes give.

Scoring reads a row as a plain forward pass does, so a decoder that computes anything else samples from another model
than the one that is trained. Which decoders are right is therefore tried on a few tokens (`_trial`), never assumed.
What so few tokens cannot show is known from the config: rotary frequencies that change beyond some length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

from sdft_cli.engines._decoding import BatchDecoder, FastDecoder, ForwardDecoder
from sdft_cli.engines._fast_layers import FastLayers
from sdft_cli.engines._trial import UNFIT, Trial, in_a_line, raise_if_no_misfit
from sdft_cli.engines._unpadded import Reading, UnpaddedDecoder
from sdft_cli.errors import UsageError
from sdft_cli.models import packing, rope
from sdft_cli.models.policy import Policy

#: Makes the decoder of one batch.
Make = Callable[[], BatchDecoder]


class Rung(NamedTuple):
    """A way to decode. ``prepare`` is called anew whenever the weights may have moved. ``unfit``, where it is given,
    is said of a model that is not of the decoder's kind, instead of the error that it raises."""

    name: str
    prepare: Callable[[], Make]
    unfit: str = ""


class Ladder:
    """How ``policy`` is decoded: by ``rung``; ``text`` is its name and why no faster one was taken.

    Raises `UsageError` where no decoder is right, `SdftError` where there is no memory to try them.
    """

    def __init__(self, policy: Policy):
        self.policy, self.limit = policy, rope.shared_up_to(policy.core.config)
        self.trial = Trial(policy, self.limit)
        self.rung, why = self._choose(_rungs(policy))
        self.text = "; ".join((self.rung.name, *why))
        self.beyond = self.rung
        if self.limit is not None:
            self.beyond, _ = self._choose(_rungs_beyond(policy, self.limit))
            self.text += (
                f"; rows that may pass {self.limit} tokens, where rotary frequencies change: {self.beyond.name}"
            )
        del self.trial  # its logits

    def makers(self) -> Callable[[int], BatchDecoder]:
        """What makes a batch's decoder, given the tokens that its longest row may reach; until the weights move."""
        usual = self.rung.prepare()

        def make(longest: int) -> BatchDecoder:
            beyond = self.limit is not None and longest > self.limit
            return self.beyond.prepare()() if beyond else usual()

        return make

    def _choose(self, rungs: Sequence[Rung]) -> tuple[Rung, list[str]]:
        """The first of ``rungs`` that is right, and what is wrong with those before it."""
        why: list[str] = []
        for rung in rungs:
            try:
                problem = self.trial.problem(rung.prepare()())
            except UNFIT as error:
                raise_if_no_misfit(self.policy, error)
                problem = rung.unfit or in_a_line(error)
            if not problem:
                return rung, why
            why.append(f"not {rung.name}: {problem}")
        raise UsageError(
            f"{self.policy.name}: reading a row token by token does not give what reading the whole row gives "
            f"({why[-1]})",
            "such models cannot be sampled from: use another model",
        )


# --- the ways to decode ----------------------------------------------------------------------------------------------


def _rungs(policy: Policy) -> list[Rung]:
    """All of them, the fastest first."""
    kept = Reading(drops=False)
    return [
        _fast(policy),
        Rung("left-padded batches", lambda: partial(ForwardDecoder, policy)),
        Rung("batches of equal length", lambda: partial(UnpaddedDecoder, policy, Reading())),
        Rung("batches of equal length, finished rows kept", lambda: partial(UnpaddedDecoder, policy, kept)),
        *_whole_rows(policy),
    ]


def _rungs_beyond(policy: Policy, limit: int) -> list[Rung]:
    """Those for rows whose frequencies may change on the way, which a cache does not survive."""
    if not rope.settled_beyond(policy.core.config):
        return _whole_rows(policy)
    anew = partial(UnpaddedDecoder, policy, Reading(restart=limit))
    return [Rung("batches of equal length, read anew in between", lambda: anew), *_whole_rows(policy)]


def _whole_rows(policy: Policy) -> list[Rung]:
    whole = partial(UnpaddedDecoder, policy, Reading(cached=False))
    return [
        Rung("the whole row for every token", lambda: whole),
        Rung("the whole row for every token, one row at a time", lambda: partial(whole, alone=True)),
    ]


def _fast(policy: Policy) -> Rung:
    @cache
    def layers() -> FastLayers:
        if not packing.has_full_attention(policy.core.config.get_text_config()):
            raise ValueError("a window would not show in a short trial")
        return FastLayers(policy.core)

    def prepare() -> Make:
        return partial(FastDecoder, policy, layers().prepacked())

    return Rung("fast layers", prepare, unfit="its layers are of another kind")
