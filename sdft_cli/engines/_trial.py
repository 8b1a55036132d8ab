"""A trial of decoders: a few rows, token by token, against plain forward passes of each row alone.

Everything that decoding a batch does happens once: prompts of different lengths, one of them a single token and two of
them equal; several further tokens; rows that leave the batch, one of them of another's length.
Shapes: P logits of a row (after its prompt and after each further token), V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdft_cli.engines._decoding import BatchDecoder
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.models import devices, packing
from sdft_cli.models.policy import Policy
from sdft_cli.models.protocols import ModelConfig

#: Tokens of the prompts. The first and the last row leave the batch after so many steps, and so many follow.
LENGTHS, STEPS, LATER = (60, 1, 33, 33), 3, 2
#: A sliding window is passed if it is no longer than this; the trial of a large model on a CPU would take too long.
LONGEST_WINDOW = 160
#: What a model may raise that is not of a decoder's kind.
UNFIT = (AttributeError, TypeError, ValueError, RuntimeError, LookupError, AssertionError)


class Trial:
    """The rows, and the logits [P, V] that plain forward passes give for them.

    No row has more than ``longest`` tokens. Raises `UsageError` for a model whose forward pass fails, `SdftError` where
    there is no memory for it.
    """

    def __init__(self, policy: Policy, longest: int | None = None):
        self.policy = policy
        self.lengths = _lengths(policy.core.config.get_text_config(), longest)
        vocabulary = policy.core.get_input_embeddings().weight.shape[0]
        self.rows = [
            _tokens(start, length, vocabulary) + _tokens(11 * start + row, STEPS + LATER, vocabulary)
            for row, (start, length) in enumerate(zip((29, 7, 1, 1), self.lengths, strict=True))
        ]
        try:
            self.wanted = [self._plain(row, length) for row, length in zip(self.rows, self.lengths, strict=True)]
        except UNFIT as error:
            raise_if_no_misfit(policy, error)
            raise UsageError(
                f"{policy.name}: a forward pass of {len(self.rows[0])} tokens fails: {in_a_line(error)}",
                "this model cannot be sampled from as it is: check its config, or use another model",
            ) from error

    def problem(self, decoder: BatchDecoder) -> str:
        """What is wrong with ``decoder``; empty if its logits are those of plain forward passes but for rounding."""
        allowed = packing.TOLERANCE if self.policy.dtype.itemsize >= 4 else packing.TOLERANCE_16
        gaps = list(map(_gap, self._decoded(decoder), self.wanted))
        return "" if all(gap <= allowed for gap in gaps) else f"logits differ by {max(gaps):.2g} of their size"

    @torch.no_grad()
    def _plain(self, row: list[int], length: int) -> Tensor:
        ids_1L = torch.tensor([row], device=self.policy.device)
        return _centred(self.policy.core(input_ids=ids_1L, use_cache=False).logits[0, length - 1 :].float())

    @torch.no_grad()
    def _decoded(self, decoder: BatchDecoder) -> list[Tensor]:
        """The same by ``decoder``; rows that leave the batch have fewer logits."""
        prompts = [row[:length] for row, length in zip(self.rows, self.lengths, strict=True)]
        further_BP = torch.tensor([row[-STEPS - LATER :] for row in self.rows], device=self.policy.device)
        early_BPV = torch.stack([decoder.start(prompts), *(decoder.step(further_BP[:, at]) for at in range(STEPS))], 1)
        rest_B = torch.arange(1, len(prompts) - 1, device=self.policy.device)
        decoder.keep(rest_B)
        later = [decoder.step(further_BP[rest_B, at]) for at in range(STEPS, STEPS + LATER)]
        rest_BPV = torch.cat((early_BPV[rest_B], torch.stack(later, 1)), 1)
        return [_centred(each) for each in (early_BPV[0], *rest_BPV, early_BPV[-1])]


def _lengths(config: ModelConfig, longest: int | None) -> list[int]:
    """The prompts' lengths: past short windows, and within the positions that the model has."""
    names = ("sliding_window", "attention_window_size", "attention_chunk_size")
    windows = [window for name in names if isinstance(window := getattr(config, name, None), int)]
    ends = [end for name in ("max_position_embeddings", "max_seq_len") if (end := getattr(config, name, None))]
    most = max(1, min([*ends, *([longest] if longest else [])], default=512) - STEPS - LATER)
    first = max([LENGTHS[0], *(window + 8 for window in windows if window <= LONGEST_WINDOW)])
    return [min(most, length) for length in (first, *LENGTHS[1:])]


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


def raise_if_no_misfit(policy: Policy, error: Exception) -> None:
    """`SdftError` where ``error`` says nothing about the model, but that there is too little memory; ``error`` itself
    where the device has failed and nothing that follows can be trusted."""
    devices.raise_if_failed(error)
    if isinstance(error, torch.OutOfMemoryError):
        raise SdftError(
            f"{policy.name}: the model and a few tokens do not fit into the memory of {policy.device}: "
            f"{in_a_line(error)}",
            "use a smaller model, or free memory",
        ) from error


def in_a_line(error: Exception) -> str:
    """The kind of an error and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
