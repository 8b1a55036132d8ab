"""Rows to padded tensors, and rows to micro-batches. B sequences, L tokens, N loss positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass
class Row:
    """A completion under the views of student and teacher, with the weight of each of its tokens in the loss.

    A token of weight 0 is no loss position. ``sampled`` holds the sampler's log-probs, or is empty; ``advantage`` is
    the completion's, where there are rewards.
    """

    student_prompt: list[int]
    completion: list[int]
    weights: list[float]
    teacher_prompt: list[int] | None = None
    sampled: list[float] = field(default_factory=list)
    advantage: float | None = None

    @property
    def length(self) -> int:
        """Tokens of the longer view."""
        return max(len(self.student_prompt), len(self.teacher_prompt or [])) + len(self.completion)


class Inputs(NamedTuple):
    """Ids [B, L] and where (row, column) the N hidden states are read.

    Padded on the right, one sequence a row, where ``lengths`` is None. There is no attention mask: under causal
    attention no token sees the padding to its right, and without a mask the attention kernels are the fast ones.
    Packed (see `packing`): one row that holds all sequences end to end, whose lengths are ``lengths``.
    """

    ids_BL: Tensor
    rows_N: Tensor
    columns_N: Tensor
    lengths: list[int] | None = None


def collate(
    prompts: Sequence[list[int]], rows: Sequence[Row], pad_id: int, device: torch.device, packed: bool = False
) -> Inputs:
    """Inputs of one view; position p predicts token p + 1, so a token's hidden state is the one before it."""
    sequences = [torch.tensor(p + r.completion) for p, r in zip(prompts, rows, strict=True)]
    found = [len(prompt) - 1 + _loss_positions(row) for prompt, row in zip(prompts, rows, strict=True)]
    lengths = [len(s) for s in sequences]
    if packed:
        before = torch.tensor([0, *lengths[:-1]]).cumsum(0).tolist()
        columns_N = torch.cat([at + start for at, start in zip(found, before, strict=True)])
        ids_1L, rows_N = torch.cat(sequences)[None], torch.zeros_like(columns_N)
        return Inputs(ids_1L.to(device), rows_N.to(device), columns_N.to(device), lengths)
    ids_BL = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=pad_id)
    return Inputs(ids_BL.to(device), _row_numbers(found).to(device), torch.cat(found).to(device))


def _loss_positions(row: Row) -> Tensor:
    return torch.tensor(row.weights).nonzero()[:, 0]


def _row_numbers(found: Sequence[Tensor]) -> Tensor:
    return torch.arange(len(found)).repeat_interleave(torch.tensor([len(at) for at in found]))


class Targets(NamedTuple):
    """What is known of the N loss positions, in the order of `collate`; None where no row has it."""

    tokens_N: Tensor
    weights_N: Tensor
    rows_N: Tensor
    sampled_N: Tensor | None
    advantage_N: Tensor | None


def targets(rows: Sequence[Row], device: torch.device) -> Targets:
    """The loss positions of ``rows``."""
    found = [_loss_positions(row) for row in rows]
    rows_N = _row_numbers(found)
    sampled = all(r.sampled for r in rows)
    known = all(r.advantage is not None for r in rows)
    return Targets(
        _read([r.completion for r in rows], found).to(device),
        _read([r.weights for r in rows], found).to(device),
        rows_N.to(device),
        _read([r.sampled for r in rows], found).to(device) if sampled else None,
        torch.tensor([r.advantage for r in rows])[rows_N].to(device) if known else None,
    )


def _read(each: Sequence[Sequence[float]], found: Sequence[Tensor]) -> Tensor:
    """What stands at the loss positions of every row, laid end to end."""
    return torch.cat([torch.tensor(values)[at] for values, at in zip(each, found, strict=True)])


def group_rows(rows: Sequence[Row], budget: int, packed: bool = False) -> list[list[Row]]:
    """Rows sorted by length into groups of at most ``budget`` tokens, padding included unless they are ``packed``; a
    longer row stands alone. Rows without a loss position are left out."""
    groups: list[list[Row]] = []
    held = 0
    for row in sorted((r for r in rows if any(r.weights)), key=lambda r: r.length):
        grown = held + row.length if packed else (len(groups[-1]) + 1 if groups else 1) * row.length
        if groups and grown <= budget:
            groups[-1].append(row)
            held += row.length
        else:
            groups.append([row])
            held = row.length
    return groups
