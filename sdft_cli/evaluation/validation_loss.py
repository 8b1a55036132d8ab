"""Validation loss: how unlikely a model finds what held-out rows should be answered with.

The mean negative log-likelihood, in nats per token, of the rows' demonstrations after the student's prompt, over the
tokens that training on them would train. Every task with demonstrations has it, whatever grades its completions, so
rates and steps can be chosen by it where nothing scores the task. It is no accuracy: an answer in other words may be as
good, and a model that has learned the tone of the demonstrations is no better for it.

Where no row of a split has a demonstration, their gold answers in words take that place; the two are never mixed. One
forward pass per row: nothing is drawn, no gradient is made, and the model is left as it was.
Shapes: N loss positions of a micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import nn

from sdft_cli import console
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.evaluation.scorable import gold_text
from sdft_cli.losses.fused import Labels, Scored, fused_loss
from sdft_cli.models.batching import Row, collate, group_rows, targets
from sdft_cli.models.chat import Chat
from sdft_cli.models.chat_template import TemplateRefusal
from sdft_cli.models.policy import Policy
from sdft_cli.runs.token_records import TokenLoss
from sdft_cli.stats import bootstrap
from sdft_cli.types import Example, Task

Split = Literal["validation", "test"]
Splits = Mapping[Split, Sequence[Example]]
#: Rows of a task whose loss is measured after a stage: with several tokens each, they settle a loss sooner than an
#: accuracy, and every stage measures the same ones.
MOST = 128
_KINDS: tuple[Literal["demonstrations", "answers"], ...] = ("demonstrations", "answers")


class Texts(NamedTuple):
    """What the loss of a task is measured on: rows of prompts and completions, with a weight of 1 for every token that
    counts. The rest is as in `TokenLoss`."""

    split: Split
    of: Literal["demonstrations", "answers"]
    rows: list[Row]
    left_out: int


def texts_of(task: Task, splits: Splits, chat: Chat, conditions: Conditions) -> Texts | None:
    """The texts of the first split that has demonstrations, else of the first that has gold answers in words; None
    where no split has either. Of each split, the rows within the limit count."""
    for kind in _KINDS:
        for split, examples in splits.items():
            within = conditions.rows(task, examples)
            shown = [_with_text(task, example, kind) for example in within]
            rows = [row for example in shown if example and (row := _row(example, chat, conditions))]
            if rows:
                return Texts(split, kind, rows, len(within) - len(rows))
    return None


def at_stages(conditions: Conditions) -> Conditions:
    """The conditions of a stage's evaluation, for its losses."""
    return replace(conditions, limit=min(MOST, conditions.limit or MOST))


def _with_text(task: Task, example: Example, kind: Literal["demonstrations", "answers"]) -> Example | None:
    """The example with what it should be answered with as its demonstration; None where it has none of that kind."""
    if kind == "demonstrations":
        return example if example.demonstration else None
    text = gold_text(task, example)
    return replace(example, demonstration=text) if text else None


def _row(example: Example, chat: Chat, conditions: Conditions) -> Row | None:
    """The row as it is scored; None where the template refuses it, it does not fit the window, or no token counts."""
    messages = conditions.messages(example)
    try:
        prompt = chat.view_ids(example, messages)
        ids, mask = chat.completion(example, shown=messages)
    except TemplateRefusal:
        return None
    fits = len(prompt) + len(ids) <= chat.window
    return Row(prompt, ids, [float(counts) for counts in mask]) if fits and any(mask) else None


def measure(policy: Policy, texts: Texts, budget: int, with_interval: bool = True) -> TokenLoss | None:
    """The loss of ``texts``, ``budget`` tokens at a time, or fewer where memory is short; None, and a note, where not
    even one row fits into memory, or the model's outputs are not finite. The interval is a bootstrap over rows."""
    measured = _within_memory(policy, texts.rows, budget)
    if measured is None:
        return None
    sums, counts = zip(*measured, strict=True)
    if not math.isfinite(sum(sums)):
        _say("the model's outputs are not finite")
        return None
    loss: TokenLoss = {
        "value": sum(sums) / sum(counts),
        "tokens": sum(counts),
        "rows": len(counts),
        "left_out": texts.left_out,
        "split": texts.split,
        "of": texts.of,
    }
    if with_interval and len(sums) > 1:
        value, draws = bootstrap.ratio(sums, counts)
        ends = bootstrap.interval(draws, value, lowest=0.0, highest=float("inf"))
        loss["interval"] = list(ends) if ends else None
    return loss


def _within_memory(policy: Policy, rows: Sequence[Row], budget: int) -> list[tuple[float, int]] | None:
    longest = max(row.length for row in rows)
    while True:
        try:
            return of_rows(policy, rows, budget)
        except torch.OutOfMemoryError:
            pass  # outside the handler, whose traceback keeps the tensors of the failed pass alive
        policy.release_memory()
        if budget <= longest:
            reason = f"a row of {longest} tokens does not fit into the memory of {policy.device}"
            _say(reason)
            return None
        budget //= 2


def _say(reason: str) -> None:
    console.err.print(f"note: no validation loss: {reason}", markup=False, soft_wrap=True)


@torch.no_grad()
def of_rows(policy: Policy, rows: Sequence[Row], budget: int) -> list[tuple[float, int]]:
    """The negative log-likelihood (nats) of each row's tokens of weight 1, and their number; rows sorted by length."""
    head, pad_id, measured = policy.head().detach(), policy.chat.pad_id, list[tuple[float, int]]()
    with evaluating(policy.model):
        for group in group_rows(rows, budget, policy.layout):
            target = targets(group, policy.device)
            prompts = [row.student_prompt for row in group]
            inputs = collate(prompts, group, pad_id, policy.device, policy.layout.packed)
            scored = Scored(policy.hidden_states(inputs), head)
            _, stats = fused_loss(scored, Labels(target.tokens_N, target.weights_N))
            counts = [sum(map(bool, row.weights)) for row in group]
            each = stats.loss_N.double().cpu().split(counts)
            measured += [(float(loss_N.sum()), count) for loss_N, count in zip(each, counts, strict=True)]
    return measured


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout; afterwards every module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
