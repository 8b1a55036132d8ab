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
    """Right-padded ids [B, L], and where (row, column) the N hidden states are read.

    There is no attention mask: under causal attention no token sees the padding to its right, and without a mask
    the attention kernels are the fast ones.
    """

    ids_BL: Tensor
    rows_N: Tensor
    columns_N: Tensor


def collate(prompts: Sequence[list[int]], rows: Sequence[Row], pad_id: int, device: torch.device) -> Inputs:
    """Inputs of one view; position p predicts token p + 1, so a token's hidden state is the one before it."""
    sequences = [p + r.completion for p, r in zip(prompts, rows, strict=True)]
    width = max(len(s) for s in sequences)
    ids_BL = torch.full((len(rows), width), pad_id, dtype=torch.long)
    where: list[tuple[int, int]] = []
    for i, (prompt, sequence, row) in enumerate(zip(prompts, sequences, rows, strict=True)):
        ids_BL[i, : len(sequence)] = torch.tensor(sequence)
        where += [(i, len(prompt) - 1 + t) for t, w in enumerate(row.weights) if w]
    rows_N, columns_N = torch.tensor(where, dtype=torch.long).reshape(-1, 2).T
    return Inputs(*(x.to(device) for x in (ids_BL, rows_N, columns_N)))


class Targets(NamedTuple):
    """What is known of the N loss positions, in the order of `collate`; None where no row has it."""

    tokens_N: Tensor
    weights_N: Tensor
    rows_N: Tensor
    sampled_N: Tensor | None
    advantage_N: Tensor | None


def targets(rows: Sequence[Row], device: torch.device) -> Targets:
    """The loss positions of ``rows``."""
    picked = [(i, r, t) for i, r in enumerate(rows) for t, w in enumerate(r.weights) if w]
    tokens_N = torch.tensor([r.completion[t] for _, r, t in picked], dtype=torch.long)
    weights_N = torch.tensor([r.weights[t] for _, r, t in picked])
    rows_N = torch.tensor([i for i, _, _ in picked], dtype=torch.long)
    sampled_N = torch.tensor([r.sampled[t] for _, r, t in picked]) if all(r.sampled for r in rows) else None
    known = all(r.advantage is not None for r in rows)
    advantage_N = torch.tensor([r.advantage for _, r, _ in picked]) if known else None
    return Targets(
        tokens_N.to(device),
        weights_N.to(device),
        rows_N.to(device),
        None if sampled_N is None else sampled_N.to(device),
        None if advantage_N is None else advantage_N.to(device),
    )


def micro_batches(rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Rows sorted by length into groups of at most ``budget`` padded tokens; a longer row stands alone."""
    groups: list[list[Row]] = []
    for row in sorted((r for r in rows if any(r.weights)), key=lambda r: r.length):
        if groups and (len(groups[-1]) + 1) * row.length <= budget:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
