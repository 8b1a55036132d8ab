"""Rows as padded or packed tensors, and in micro-batches. B sequences, L tokens, N loss positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor


@dataclass
class Row:
    """A completion under the student's and the teacher's view, with the weight of each of its tokens in the loss.

    A token of weight 0 is not a loss position. ``sampled`` holds the sampler's log-probs, or is empty; ``advantage`` is
    the completion's, where there are rewards. ``skipped`` marks the tokens at the start that the loss leaves out.
    """

    student_prompt: list[int]
    completion: list[int]
    weights: list[float]
    teacher_prompt: list[int] | None = None
    sampled: list[float] = field(default_factory=list)
    advantage: float | None = None
    skipped: list[bool] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens of the longer view."""
        return max(len(self.student_prompt), len(self.teacher_prompt or [])) + len(self.completion)

    def beginning(self) -> Row | None:
        """The row up to the last token that is left out, with a weight of 1 on those; None where there is none."""
        end = max((i for i, left_out in enumerate(self.skipped, 1) if left_out), default=0)
        weights = [float(left_out) for left_out in self.skipped[:end]]
        return Row(self.student_prompt, self.completion[:end], weights, self.teacher_prompt) if end else None


class Layout(NamedTuple):
    """How rows share a forward pass: end to end in one row (``packed``, see `packing`), padded on the right, or not.

    A row of more than ``limit`` tokens is passed alone in any case: its positions depend on the longest row (`rope`).
    """

    kind: Literal["packed", "padded", "row by row"] = "padded"
    limit: int | None = None

    @property
    def packed(self) -> bool:
        """Whether rows are laid end to end."""
        return self.kind == "packed"

    def alone(self, row: Row) -> bool:
        """Whether ``row`` shares its pass with no other."""
        return self.kind == "row by row" or (self.limit is not None and row.length > self.limit)


PADDED = Layout()


class Inputs(NamedTuple):
    """Ids [B, L], and the row and column of each of the N hidden states that are read.

    Padded (``lengths`` is None): one sequence per row, padding on the right. There is no attention mask: under causal
    attention no token sees the padding to its right, and the fast attention kernels take no mask.
    Packed (see `packing`): a single row with all sequences end to end, whose lengths are ``lengths``.
    """

    ids_BL: Tensor
    rows_N: Tensor
    columns_N: Tensor
    lengths: list[int] | None = None


def collate(
    prompts: Sequence[list[int]], rows: Sequence[Row], pad_id: int, device: torch.device, packed: bool = False
) -> Inputs:
    """Inputs of one view. Position p predicts token p + 1, so the hidden state for a token is the one before it."""
    sequences = [torch.tensor(p + r.completion) for p, r in zip(prompts, rows, strict=True)]
    columns = [len(prompt) - 1 + _loss_positions(row) for prompt, row in zip(prompts, rows, strict=True)]
    lengths = [len(s) for s in sequences]
    if packed:
        starts = torch.tensor([0, *lengths[:-1]]).cumsum(0).tolist()
        columns_N = torch.cat([column + start for column, start in zip(columns, starts, strict=True)])
        ids_1L, rows_N = torch.cat(sequences)[None], torch.zeros_like(columns_N)
        return Inputs(ids_1L.to(device), rows_N.to(device), columns_N.to(device), lengths)
    ids_BL = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=pad_id)
    return Inputs(ids_BL.to(device), _row_numbers(columns).to(device), torch.cat(columns).to(device))


def _loss_positions(row: Row) -> Tensor:
    return torch.tensor(row.weights).nonzero()[:, 0]


def _row_numbers(positions: Sequence[Tensor]) -> Tensor:
    """The number of the row that each of the ``positions``, given per row, belongs to."""
    return torch.arange(len(positions)).repeat_interleave(torch.tensor([len(each) for each in positions]))


class Targets(NamedTuple):
    """Per-token data of the N loss positions, in the order of `collate`; None unless every row has it."""

    tokens_N: Tensor
    weights_N: Tensor
    rows_N: Tensor
    sampled_N: Tensor | None
    advantage_N: Tensor | None


def targets(rows: Sequence[Row], device: torch.device) -> Targets:
    """The loss positions of ``rows``."""
    positions = [_loss_positions(row) for row in rows]
    rows_N = _row_numbers(positions)
    sampled = all(r.sampled for r in rows)
    rewarded = all(r.advantage is not None for r in rows)
    return Targets(
        _select([r.completion for r in rows], positions).to(device),
        _select([r.weights for r in rows], positions).to(device),
        rows_N.to(device),
        _select([r.sampled for r in rows], positions).to(device) if sampled else None,
        torch.tensor([r.advantage for r in rows])[rows_N].to(device) if rewarded else None,
    )


def _select(values: Sequence[Sequence[float]], positions: Sequence[Tensor]) -> Tensor:
    """The values of every row at its ``positions``, rows end to end."""
    return torch.cat([torch.tensor(row)[at] for row, at in zip(values, positions, strict=True)])


def group_rows(rows: Sequence[Row], budget: int, layout: Layout = PADDED) -> list[list[Row]]:
    """Rows sorted by length, in groups of at most ``budget`` tokens; a longer row is a group of its own, as is one that
    ``layout`` keeps alone.

    Padding counts as tokens, unless rows are packed. Rows without a loss position are left out.
    """
    groups: list[list[Row]] = []
    total = 0
    for row in sorted((r for r in rows if any(r.weights)), key=lambda r: r.length):
        grown = total + row.length if layout.packed else (len(groups[-1]) + 1 if groups else 1) * row.length
        if groups and grown <= budget and not layout.alone(row):
            groups[-1].append(row)
            total += row.length
        else:
            groups.append([row])
            total = row.length
    return groups
