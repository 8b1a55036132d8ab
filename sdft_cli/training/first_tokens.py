"""The first tokens of completions: how much of the KL to the teacher lies there, and does the loss leave them out?

SDFT leaves out the first 3 tokens, because a teacher that was shown a demonstration tends to begin with words about it
("Based on the text …", arXiv 2601.19897), and of an answer of hundreds of tokens 3 are no loss. Of a short answer they
are: they hold its format, or the answer itself, and a student that never learns how an answer begins does not get to
the rest. ``objective.skip_first=auto`` therefore measures, before the first step, how much would be left out.

Shapes: N loss positions of a micro-batch, n tokens of one completion. Nats throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdft_cli.evaluation.divergences import first_share
from sdft_cli.losses.fused import Scored
from sdft_cli.models.batching import Layout, Row, group_rows, targets
from sdft_cli.runs.records import StepFacts
from sdft_cli.runs.token_records import SkipFirstFacts
from sdft_cli.training.objective import StepObjective

#: What the paper leaves out, and ``auto`` where nothing speaks against it.
PAPER = 3
#: Completions that are measured.
ROWS = 16
#: Tokens that are sampled at the least, lest a very short demonstration hide how completions begin.
LEAST = 16
#: Tokens: an answer of fewer is short.
SHORT = 64
#: The share of the KL from which on the first tokens are trained: in short answers the mask must cost next to nothing,
#: in long ones the words about the demonstration may take much of the KL, but not most.
LIMIT_SHORT, LIMIT_LONG = 0.1, 0.5
#: Nats per token at the first tokens below which leaving them out loses nothing, whatever their share.
LITTLE = 0.01
#: The share of completions without a token after the first ones from which on too many would carry no signal.
SILENT = 0.1

#: Student and teacher on a micro-batch, without gradient.
Sides = Callable[[list[Row]], tuple[Scored, Scored]]


@torch.no_grad()
def kl_by_row(rows: Sequence[Row], sides: Sides, objective: StepObjective, tokens: int, layout: Layout) -> list[Tensor]:
    """KL(teacher || student) at every loss position of every row, [n] each, in the order of `group_rows`; passes of at
    most ``tokens`` tokens. It draws nothing and leaves no gradient."""
    found: list[Tensor] = []
    for group in group_rows(rows, tokens, layout):
        student, teacher = sides(group)
        kl_N = objective.look(targets(group, student.hidden_NH.device), student, teacher).kl_N
        found += kl_N.cpu().split([sum(weight != 0 for weight in row.weights) for row in group])
    return found


def answers(rows: Sequence[Row], thinking_length: Callable[[list[int]], int]) -> list[Row]:
    """The rows that carry a signal, with a weight of 1 on each token that it lies at, thinking left out: what
    ``skip_first`` counts from its first token on."""
    weighed = []
    for row in rows:
        thought = thinking_length(row.completion)
        weights = [float(i >= thought and weight != 0) for i, weight in enumerate(row.weights)]
        if any(weights):
            weighed.append(Row(row.student_prompt, row.completion, weights, row.teacher_prompt))
    return weighed


def skipped(rows: Sequence[Row], kl: float | None, kl_of: Callable[[list[Row]], list[Tensor]]) -> StepFacts:
    """The KL at the tokens that ``skip_first`` leaves out of the loss, and its share of the sum over all tokens; ``kl``
    is the mean at the trained ones, and ``kl_of`` gives it by row. Nothing where no token is left out."""
    beginnings = [beginning for row in rows if (beginning := row.beginning())]
    if not beginnings or kl is None:
        return {}
    each = kl_of(beginnings)
    total, count = sum(float(kl_n.sum()) for kl_n in each), sum(map(len, each))
    trained = kl * sum(weight != 0 for row in rows for weight in row.weights)
    return {"skipped_kl": total / max(1, count), "skipped_share": total / max(total + trained, 1e-12)}


def longest(new_tokens: int, demonstration_tokens: float | None, thinks: bool) -> int:
    """How far completions are sampled to be measured: as far as a demonstration goes, where one is known, for nothing
    behind it counts (`choose`). A model that may think first is left all its ``new_tokens``."""
    if demonstration_tokens is None or thinks:
        return new_tokens
    return min(new_tokens, max(LEAST, math.ceil(demonstration_tokens)))


def choose(kl_rows: Sequence[Tensor], demonstration_tokens: float | None) -> SkipFirstFacts:
    """The number that ``auto`` comes to: `PAPER`, or 0.

    ``kl_rows`` has the KL(teacher || student) at every token of each completion, [n] each, ``demonstration_tokens`` the
    mean length of demonstrations, where there are any. What counts of a completion is no longer than that: there the
    answer ends, and a student that does not end it yet would make it look long.
    """
    # a model whose outputs are NaN is for guards; a KL below 0 is one of 0, rounded
    sound = [kl_n.clamp(min=0) for kl_n in kl_rows if bool(kl_n.isfinite().all())]
    lengths = [len(kl_n) for kl_n in sound]
    facts: SkipFirstFacts = {
        "skip_first": PAPER,
        "rows": len(sound),
        "demonstration_tokens": demonstration_tokens,
        "why": "no completion could be measured",
    }
    if not sound:
        return facts
    within = max(lengths) if demonstration_tokens is None else max(1, math.ceil(demonstration_tokens))
    counted = [kl_n[None, :within] for kl_n in sound]
    first = torch.cat([kl_1n[0, :PAPER] for kl_1n in counted])
    facts["share"], facts["kl"] = first_share(counted, PAPER), float(first.mean())
    facts["answer_tokens"] = answer = sum(kl_1n.shape[1] for kl_1n in counted) / len(counted)
    silent = sum(length <= PAPER for length in lengths) / len(lengths)
    of = f"the first {PAPER}"
    lies = f"{100 * facts['share']:.0f} % of the KL to the teacher in answers of {answer:.0f} tokens lies at {of}"
    if silent >= SILENT:
        return {**facts, "skip_first": 0, "why": f"{100 * silent:.0f} % of completions have no token after {of}"}
    if facts["kl"] < LITTLE:
        return {**facts, "why": f"the teacher hardly differs at {of} tokens ({facts['kl']:.2g} nats per token)"}
    trained = facts["share"] >= (LIMIT_SHORT if answer < SHORT else LIMIT_LONG)
    return {**facts, "skip_first": 0 if trained else PAPER, "why": lies}


def in_words(facts: SkipFirstFacts, table: str = "") -> str:
    """``skip_first: 0, because …``; ``table`` is put before the key, as in guards."""
    return f"{table}objective.skip_first: {facts['skip_first']}, because {facts['why']}"
