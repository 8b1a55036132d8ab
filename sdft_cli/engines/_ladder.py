"""The decoder of a model: the fastest one that gives what plain forward passes give.

Scoring reads a row as a plain forward pass does, so a decoder that computes anything else samples from another model
than the one that is trained. Which decoders are right is therefore tried on a few tokens, never assumed: prompts of
different lengths in one batch, one of them a single token and two equal, several further tokens, rows that leave the
batch. What so few tokens cannot show is known from the config: rotary frequencies that change beyond some length.
Shapes: B rows, L tokens, P logits of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from sdft_cli.engines._decoding import BatchDecoder, FastDecoder, ForwardDecoder
from sdft_cli.engines._fast_layers import FastLayers
from sdft_cli.engines._unpadded import Reading, UnpaddedDecoder
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.models import packing
from sdft_cli.models.policy import Policy
from sdft_cli.models.protocols import ModelConfig

#: Tokens of the trial's prompts; the first row leaves the batch after so many steps, and so many follow.
LENGTHS, STEPS, LATER = (60, 1, 33, 33), 3, 2
#: The trial passes a sliding window that is no longer than this.
LONGEST_WINDOW = 160
#: What a decoder may raise for a model that is not of its kind.
UNFIT = (AttributeError, TypeError, ValueError, RuntimeError, LookupError, AssertionError)

#: Makes the decoder of one batch.
Make = Callable[[], BatchDecoder]


class Rung(NamedTuple):
    """A way to decode. ``prepare`` is called anew whenever the weights may have moved."""

    name: str
    prepare: Callable[[], Make]


class Ladder:
    """How ``policy`` is decoded: by ``rung``; ``text`` is its name and why no faster one was taken.

    Raises `UsageError` where no decoder is right, `SdftError` where there is no memory to try them.
    """

    def __init__(self, policy: Policy):
        self.change = changing_frequencies(policy.core.config.get_text_config())
        trial = _Trial(policy, self.change)
        self.rung, why = trial.first(_rungs(policy))
        self.text = self.rung.name + (f" ({'; '.join(why)})" if why else "")
        self.beyond = self.rung
        if self.change:
            self.beyond, _ = trial.first(_rungs_beyond(policy, self.change))
            self.text += f"; beyond {self.change.length} tokens, where rotary frequencies change: {self.beyond.name}"

    def makers(self) -> Callable[[int], BatchDecoder]:
        """What makes a batch's decoder, given the tokens that its longest row may reach, until the weights move."""
        usual = self.rung.prepare()

        def make(longest: int) -> BatchDecoder:
            beyond = self.change is not None and longest > self.change.length
            return self.beyond.prepare()() if beyond else usual()

        return make


# --- rotary frequencies that depend on a row's length ----------------------------------------------------------------


class Change(NamedTuple):
    """Beyond ``length`` tokens all of a row's rotary frequencies are others; ``growing``: others again for every
    further token."""

    length: int
    growing: bool


def changing_frequencies(config: ModelConfig) -> Change | None:
    """LongRoPE (arXiv 2402.13753) has two sets of frequencies, dynamic NTK scaling has one per length; None for ropes
    whose frequencies are fixed."""
    window = getattr(config, "max_position_embeddings", None)
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *ropes.values()):
        kind = str(rope.get("rope_type")) if isinstance(rope, dict) else ""
        length = (kind == "longrope" and rope.get("original_max_position_embeddings")) or window
        if length and (kind == "longrope" or "dynamic" in kind):
            return Change(int(length), growing=kind != "longrope")
    return None


# --- the ways to decode ----------------------------------------------------------------------------------------------


def _rungs(policy: Policy) -> list[Rung]:
    """All of them, the fastest first."""
    return [
        _fast(policy),
        Rung("left-padded batches", lambda: partial(ForwardDecoder, policy)),
        Rung("batches of equal length", lambda: partial(UnpaddedDecoder, policy, Reading())),
        *_whole_rows(policy),
    ]


def _rungs_beyond(policy: Policy, change: Change) -> list[Rung]:
    """Those for rows whose frequencies may change on the way, which a cache does not survive."""
    if change.growing:
        return _whole_rows(policy, growing=True)
    anew = partial(UnpaddedDecoder, policy, Reading(restart=change.length))
    return [Rung("batches of equal length, read anew there", lambda: anew), *_whole_rows(policy)]


def _whole_rows(policy: Policy, growing: bool = False) -> list[Rung]:
    whole = partial(UnpaddedDecoder, policy, Reading(cached=False, growing=growing))
    return [
        Rung("the whole row for every token", lambda: whole),
        Rung("the whole row for every token, one row at a time", lambda: partial(whole, alone=True)),
    ]


def _fast(policy: Policy) -> Rung:
    @cache
    def layers() -> FastLayers:
        if not packing.has_full_attention(policy.core.config.get_text_config()):
            raise ValueError("a layer does not attend to all tokens")
        return FastLayers(policy.core)

    return Rung("fast layers", lambda: partial(FastDecoder, policy, layers().prepacked()))


# --- trying them -----------------------------------------------------------------------------------------------------


class _Trial:
    """A few rows, and the logits [P, V] that plain forward passes give after the prompt and each further token."""

    def __init__(self, policy: Policy, change: Change | None):
        self.policy = policy
        self.lengths = _lengths(policy.core.config.get_text_config(), change)
        vocabulary = policy.core.get_input_embeddings().weight.shape[0]
        self.rows = [
            _tokens(start, length, vocabulary) + _tokens(11 * start + row, STEPS + LATER, vocabulary)
            for row, (start, length) in enumerate(zip((29, 7, 1, 1), self.lengths, strict=True))
        ]
        try:
            self.wanted = [self._plain(row, length) for row, length in zip(self.rows, self.lengths, strict=True)]
        except UNFIT as error:
            _raise_if_out_of_memory(policy, error)
            raise UsageError(
                f"{policy.name}: a forward pass of {len(self.rows[0])} tokens fails: {_line(error)}",
                "this model cannot be used as it is: check its config, or use another model",
            ) from error

    def first(self, rungs: Sequence[Rung]) -> tuple[Rung, list[str]]:
        """The first of ``rungs`` that is right, and what is wrong with those before it."""
        allowed = packing.TOLERANCE if self.policy.dtype.itemsize >= 4 else packing.TOLERANCE_16
        why: list[str] = []
        for rung in rungs:
            try:
                gap = max(map(_gap, self._decoded(rung.prepare()()), self.wanted))
            except UNFIT as error:
                _raise_if_out_of_memory(self.policy, error)
                why.append(f"{rung.name}: {_line(error)}")
                continue
            if gap <= allowed:
                return rung, why
            why.append(f"{rung.name}: logits differ by {gap:.2g} of their size")
        raise UsageError(
            f"{self.policy.name}: sampling token by token does not give what a forward pass of the whole row gives "
            f"({why[-1]})",
            "such models are not supported: use another model",
        )

    @torch.no_grad()
    def _plain(self, row: list[int], length: int) -> Tensor:
        ids_1L = torch.tensor([row], device=self.policy.device)
        return _centred(self.policy.core(input_ids=ids_1L, use_cache=False).logits[0, length - 1 :].float())

    @torch.no_grad()
    def _decoded(self, decoder: BatchDecoder) -> list[Tensor]:
        """The same by ``decoder``; the first row leaves the batch early, and has fewer logits."""
        prompts = [row[:length] for row, length in zip(self.rows, self.lengths, strict=True)]
        logits = [decoder.start(prompts)]
        further_BP = torch.tensor([row[-STEPS - LATER :] for row in self.rows], device=self.policy.device)
        logits += [decoder.step(further_BP[:, at]) for at in range(STEPS)]
        rest_B = torch.arange(1, len(prompts), device=self.policy.device)
        decoder.keep(rest_B)
        later = [decoder.step(further_BP[rest_B, at]) for at in range(STEPS, STEPS + LATER)]
        first_BPV = torch.stack(logits, 1)
        rest_BPV = torch.cat((first_BPV[1:], torch.stack(later, 1)), 1)
        return [_centred(first_BPV[0]), *_centred(rest_BPV)]


def _lengths(config: ModelConfig, change: Change | None) -> list[int]:
    """The prompts' lengths: past short windows, but within the positions that the model has."""
    windows = [
        getattr(config, name, None) for name in ("sliding_window", "attention_window_size", "attention_chunk_size")
    ]
    passed = [window + 8 for window in windows if isinstance(window, int) and window <= LONGEST_WINDOW]
    ends = [getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len")]
    ends += [change.length] if change else []
    most = max(1, min((end for end in ends if isinstance(end, int)), default=512) - STEPS - LATER)
    return [min(most, length) for length in (max(LENGTHS[0], *passed, 0), *LENGTHS[1:])]


def _tokens(start: int, count: int, vocabulary: int) -> list[int]:
    """From the middle of the vocabulary: special tokens stand at its ends."""
    return [vocabulary // 4 + (start + at) % max(1, vocabulary // 2) for at in range(count)]


def _centred(logits_PV: Tensor) -> Tensor:
    """Less what no probability depends on."""
    return logits_PV - logits_PV.mean(-1, keepdim=True)


def _gap(ours_PV: Tensor, theirs_PV: Tensor) -> float:
    """The norm of the difference as a share of the norm."""
    theirs_PV = theirs_PV[: len(ours_PV)]
    return float((ours_PV - theirs_PV).norm() / theirs_PV.norm().clamp(min=1e-6))


def _raise_if_out_of_memory(policy: Policy, error: Exception) -> None:
    if isinstance(error, torch.OutOfMemoryError):
        raise SdftError(
            f"{policy.name}: the model and a few tokens do not fit into the memory of {policy.device}: {_line(error)}",
            "use a smaller model, or free memory",
        ) from error


def _line(error: Exception) -> str:
    """What ``error`` is, in one line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
