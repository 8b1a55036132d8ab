"""Views as the teacher's: how well the model answers when it is shown each of them, and how that differs from what the
student does without.

The recipe's own view is measured on all rows of the probe, every other one that the rows can show on the first
`VIEW_ROWS` of them. The divergence is taken on the student's own completions, as in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sdft_cli.evaluation import divergences, summaries
from sdft_cli.evaluation.leakage import leakage, leaked_phrases
from sdft_cli.evaluation.summaries import Gain
from sdft_cli.models.batching import Row
from sdft_cli.models.views import VIEWS, demonstration_text, message_text
from sdft_cli.runs.records import ItemRecord
from sdft_cli.runs.token_records import Divergences, SkipFirstFacts
from sdft_cli.stats import intervals
from sdft_cli.training import first_tokens
from sdft_cli.training.probe_record import Clean, ViewProbe
from sdft_cli.training.probe_subject import Subject, written_lengths
from sdft_cli.types import Example, Rollout

#: Rows on which views other than the recipe's own are measured.
VIEW_ROWS = 16
#: A view that cannot show this share of the rows is not measured: the others would carry no signal.
LEAST_SHOWN = 0.9
#: Numbers of first tokens whose share of the divergence is reported.
FIRST = (1, 3, 8)


class Student(NamedTuple):
    """What the student has written without help: greedily, graded, and at temperature 1."""

    records: list[ItemRecord]
    sampled: list[Rollout]


class Candidate(NamedTuple):
    """A view and the rows that it can show, of those ``tried``: their numbers, and the prompts."""

    name: str
    tried: int
    at: list[int]
    prompts: list[list[int]]


class Answers(NamedTuple):
    """What the teacher has written for a candidate's rows: completions and their grades, and the same grades with a
    value only for what is clean."""

    rollouts: list[Rollout]
    records: list[ItemRecord]
    clean: list[ItemRecord]


class MeasuredView(NamedTuple):
    """The figures of a view, and what they are made of."""

    probe: ViewProbe
    candidate: Candidate
    records: list[ItemRecord]


def candidates(subject: Subject, own: str, only_own: bool) -> list[Candidate]:
    """The recipe's ``own`` view first, then every other that can show the rows and shows something else."""
    found = [_candidate(subject, own, len(subject.rows))]
    if only_own:
        return found
    seen = [_first_prompts(found[0])]
    names = [name for name, view in VIEWS.items() if name != own and not view.needs_attempts]
    for name in names:
        if name in (subject.recipe.views.student, "prompt"):
            continue
        candidate = _candidate(subject, name, min(VIEW_ROWS, len(subject.rows)))
        if len(candidate.at) >= LEAST_SHOWN * candidate.tried and _first_prompts(candidate) not in seen:
            seen.append(_first_prompts(candidate))
            found.append(candidate)
    return found


def _candidate(subject: Subject, name: str, tried: int) -> Candidate:
    prompts = [subject.prompt("teacher", name, row.example) for row in subject.rows[:tried]]
    shown = [(i, prompt) for i, prompt in enumerate(prompts) if prompt is not None]
    return Candidate(name, tried, [i for i, _ in shown], [prompt for _, prompt in shown])


def _first_prompts(candidate: Candidate) -> list[tuple[int, list[int]]]:
    return [(i, prompt) for i, prompt in zip(candidate.at, candidate.prompts, strict=True) if i < VIEW_ROWS]


def measure_views(subject: Subject, found: Sequence[Candidate], student: Student) -> list[MeasuredView]:
    """The figures of all views, whose completions are sampled together; the first is the recipe's own."""
    every = iter(subject.sample([prompt for candidate in found for prompt in candidate.prompts], greedy=True))
    written = [answers(subject, candidate, [next(every) for _ in candidate.prompts], student) for candidate in found]
    own, measured = written[0].clean, list[MeasuredView]()
    for candidate, given in zip(found, written, strict=True):
        compared = _paired(own, given.clean, subject.seed) if measured else None
        probe = _figures(subject, candidate, given, student, compared)
        measured.append(MeasuredView(probe, candidate, given.records))
    return measured


def answers(subject: Subject, candidate: Candidate, rollouts: list[Rollout], student: Student) -> Answers:
    """The teacher's completions for a candidate's rows, graded."""
    examples = [subject.rows[i].example for i in candidate.at]
    records = subject.grade(examples, rollouts)
    texts = [record["completion"] for record in records]
    leaks = leaked_phrases(texts, examples, VIEWS[candidate.name], _unprompted(student)) or [[]] * len(texts)
    triples = zip(records, rollouts, leaks, strict=True)
    return Answers(
        rollouts, records, [_if_clean(r, rollout.finish == "stop" and not leak) for r, rollout, leak in triples]
    )


def _if_clean(record: ItemRecord, clean: bool) -> ItemRecord:
    return record if record["value"] is None else {**record, "value": record["value"] * clean}


def _figures(
    subject: Subject, candidate: Candidate, given: Answers, student: Student, compared: Gain | None
) -> ViewProbe:
    examples, records = [subject.rows[i].example for i in candidate.at], given.records
    texts, unprompted = [record["completion"] for record in records], _unprompted(student)
    shares = _divergence(subject, candidate, student.sampled)
    return {
        "view": candidate.name,
        "demonstrates": _demonstrates(candidate.name, examples),
        "rows": len(examples),
        "shown": len(examples) / candidate.tried,
        "teacher": summaries.summarize(records),
        "lengths": written_lengths(given.rollouts),
        "gain": summaries.gain(student.records, records, subject.seed),
        "leakage": leakage(texts, examples, VIEWS[candidate.name], unprompted),
        "clean": share(given.clean),
        "clean_gain": compared,
        "sampled": None,
        "kl": shares.kl,
        "first": shares.first,
        "masked": shares.masked,
        "skip_first": shares.skip_first,
    }


def _unprompted(student: Student) -> Iterator[str]:
    return (record["completion"] for record in student.records)


def _demonstrates(name: str, examples: Sequence[Example]) -> bool:
    """Whether the view shows the demonstration itself."""
    for example in examples:
        text = demonstration_text(example).strip()
        return bool(text) and text in "\n".join(map(message_text, VIEWS[name](example) or []))
    return False


def _paired(own: Sequence[ItemRecord], other: Sequence[ItemRecord], seed: int) -> Gain | None:
    """The gain of ``other`` on the rows that both have."""
    both = {record["id"] for record in own}
    return summaries.gain(own, [record for record in other if record["id"] in both], seed)


def share(clean: Sequence[ItemRecord]) -> Clean | None:
    """The share of clean completions; None where nothing is scored."""
    values = [record["value"] for record in clean if record["value"] is not None]
    if not values:
        return None
    return {"value": sum(values) / len(values), "interval": intervals.of_scores(values), "n": len(values)}


# --- the divergence --------------------------------------------------------------------------------------------------


class _Shares(NamedTuple):
    """Of the divergence: its means, its shares at the first tokens and at those that the loss leaves out, and what
    ``objective.skip_first=auto`` would come to."""

    kl: Divergences | None
    first: dict[str, float]
    masked: float | None
    skip_first: SkipFirstFacts | None


def _divergence(subject: Subject, candidate: Candidate, sampled: Sequence[Rollout]) -> _Shares:
    pairs = [
        Row(subject.rows[i].prompt, sampled[i].ids, [1.0] * len(sampled[i].ids), teacher)
        for i, teacher in zip(candidate.at, candidate.prompts, strict=True)
        if sampled[i].ids
    ]
    if not pairs:
        return _Shares(None, {}, None, None)
    pairs.sort(key=lambda row: row.length)  # the order in which they come back
    kl_rows = divergences.per_token(subject.policy, pairs, subject.recipe.train.micro_batch_budget)
    thoughts = [subject.policy.chat.thinking_length(row.completion) for row in pairs]
    answers = [kl_2N[0, thought:] for kl_2N, thought in zip(kl_rows, thoughts, strict=True) if thought < kl_2N.shape[1]]
    demonstrations = [len(row.completion) for row in subject.demonstrations]
    mean = sum(demonstrations) / len(demonstrations) if demonstrations else None
    chosen = first_tokens.choose(answers, mean)
    asked = subject.recipe.objective.skip_first
    skip = chosen["skip_first"] if asked == "auto" else asked
    return _Shares(
        divergences.summarize(kl_rows, first_tokens.PAPER if asked == "auto" else asked, subject.seed),
        {str(k): divergences.first_share(kl_rows, k, thoughts) for k in FIRST},
        divergences.first_share(kl_rows, skip, thoughts),
        chosen,
    )
