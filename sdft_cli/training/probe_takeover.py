"""Taking over: is the teacher still right when the student has begun?

The loss of on-policy distillation acts on prefixes that the student has sampled. If the teacher, put behind the
student's first tokens, can still reach the answer, its distributions point there from wherever the student is. If it
cannot, what a completion will be is decided in those tokens, and the loss has to act on them: they must not be skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdft_cli.evaluation import summaries
from sdft_cli.runs.records import ItemRecord
from sdft_cli.training.probe_record import Takeover, TakeoverPoint
from sdft_cli.training.probe_subject import Subject, rate
from sdft_cli.training.probe_views import MeasuredView
from sdft_cli.types import Rollout

#: After how many of the student's tokens the teacher takes over.
PREFIXES = (0, 1, 3, 8)
#: Rows on which it does.
TAKEOVER_ROWS = 16


def take_over(subject: Subject, view: MeasuredView, sampled: Sequence[Rollout]) -> Takeover | None:
    """Accuracies of the teacher behind the first tokens of the student's ``sampled`` completions; None where the view
    can show no row."""
    count = sum(i < TAKEOVER_ROWS for i in view.candidate.at)
    alone = view.records[:count]
    if not alone:
        return None
    points = [_point(0, alone, alone, 0, subject.seed)]
    for tokens in PREFIXES[1:]:
        if tokens < subject.stage.max_new_tokens:
            rollouts, over = continued(subject, view, sampled, tokens, count)
            records = subject.grade([subject.rows[i].example for i in view.candidate.at[:count]], rollouts)
            points.append(_point(tokens, records, alone, over, subject.seed))
    return {"view": view.candidate.name, "points": points}


def continued(
    subject: Subject, view: MeasuredView, sampled: Sequence[Rollout], tokens: int, count: int
) -> tuple[list[Rollout], int]:
    """The student's first ``tokens``, continued greedily by the teacher, of the view's first ``count`` rows; and how
    many of them had ended by then and are the student's own."""
    begun = [sampled[i] for i in view.candidate.at[:count]]
    ended = [len(rollout.ids) <= tokens for rollout in begun]
    pairs = zip(view.candidate.prompts, begun, ended, strict=False)
    prompts = [prompt + rollout.ids[:tokens] for prompt, rollout, over in pairs if not over]
    rest = iter(subject.sample(prompts, greedy=True, max_new_tokens=subject.stage.max_new_tokens - tokens))
    whole = []
    for rollout, over in zip(begun, ended, strict=True):
        if over:
            whole.append(rollout)
            continue
        more = next(rest)
        ids, logprobs = rollout.ids[:tokens] + more.ids, rollout.logprobs[:tokens] + more.logprobs
        whole.append(Rollout(rollout.prompt_ids, ids, logprobs, more.finish, rollout.index))
    return whole, sum(ended)


def _point(
    tokens: int, records: Sequence[ItemRecord], alone: Sequence[ItemRecord], over: int, seed: int
) -> TakeoverPoint:
    return {
        "tokens": tokens,
        **rate(records),
        "over": over,
        "change": summaries.gain(alone, records, seed) if tokens else None,
    }
