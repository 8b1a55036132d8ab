"""Completions of a phase: where they come from, and what they are like.

``student`` writes anew for every batch, ``teacher`` once before the phase in its own view, ``dataset`` has the
demonstrations, ``corpus`` is raw text in blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sdft_cli.config.recipe import Recipe, Sampler
from sdft_cli.evaluation.leakage import leakage
from sdft_cli.models.batching import Row
from sdft_cli.models.chat import Chat
from sdft_cli.models.chat_template import TemplateRefusal
from sdft_cli.models.engine import Engine, sample_rows
from sdft_cli.models.views import VIEWS
from sdft_cli.runs.records import StepFacts
from sdft_cli.training.rendered_views import Prompts
from sdft_cli.types import Example, Rollout, Score

SHOWN = 64  # examples that are looked at where all would be too many
NGRAM = 4  # length of the runs whose repetition is counted


@dataclass
class Completion:
    """A completion of an example's prompt: its loss mask, how it ended, and, where asked for, log-probs and grade;
    ``crowded`` where it does not fit the window behind the teacher's prompt."""

    example: Example
    prompt: list[int]
    ids: list[int]
    mask: list[bool]
    finish: str = "stop"
    logprobs: list[float] | None = None
    score: Score | None = None
    text: str = ""
    crowded: bool = False

    @property
    def reward(self) -> float | None:
        """The grade, or None where there is none."""
        return self.score.value if self.score else None


class CompletionSource:
    """Writes the completions of a phase's examples. ``start`` gives it an engine before the first are asked for;
    ``stored`` holds those of a teacher that wrote once, example by example."""

    def __init__(self, chat: Chat, sampler: Sampler, prompts: Prompts, examples: Sequence[Example], longest: int):
        self.chat, self.sampler, self.prompts, self.examples = chat, sampler, prompts, examples
        self.max_new_tokens = longest
        self.engine: Engine | None = None
        self.stored: Sequence[Rollout] = ()

    def start(self, engine: Engine, stored: Sequence[Rollout] = ()) -> None:
        """Sample with ``engine`` from now on."""
        self.engine, self.stored = engine, stored

    def write(
        self,
        picked: Sequence[tuple[int, int]],
        seed: int,
        rows: Sequence[int] | None = None,
        longest: int | None = None,
    ) -> list[Completion]:
        """Completion number ``k`` of example ``i`` for every (i, k) of ``picked``. Where the student writes them,
        ``rows`` are their numbers in the draw with ``seed``, and ``longest`` stands in for ``max_new_tokens``."""
        examples = [self.examples[i] for i, _ in picked]
        if self.sampler.source == "corpus":
            return [Completion(e, e.meta["before"], e.meta["ids"], [True] * len(e.meta["ids"])) for e in examples]
        prompts = [self.prompts.student(e) for e in examples]
        if self.sampler.source == "dataset":
            pairs = [self.prompts.demonstrated(e) for e in examples]
            return [Completion(e, p, *pair) for e, p, pair in zip(examples, prompts, pairs, strict=True)]
        if self.sampler.source == "teacher":
            rollouts = [self.stored[i * self.sampler.n + k] for i, k in picked]
        else:
            assert self.engine is not None, "start() comes before the first batch"
            longest = longest or self.max_new_tokens
            rollouts = sample_rows(self.engine, prompts, self.sampler, longest, seed, rows)
        on_policy = self.sampler.source == "student"  # another view's log-probs are no measure of this student
        return [
            Completion(e, p, r.ids, [True] * len(r.ids), r.finish, r.logprobs if on_policy else None)
            for e, p, r in zip(examples, prompts, rollouts, strict=True)
        ]

    def write_once(self, engine: Engine, seed: int) -> list[Rollout]:
        """The teacher's completions of every example, under its own view, with the engine's present weights."""
        prompts = [self.prompts.teacher(e) or [] for e in self.examples]
        repeated_prompts = [p for p in prompts for _ in range(self.sampler.n)]
        return engine.sample(repeated_prompts, self.sampler, self.max_new_tokens, seed)


# --- what they are like --------------------------------------------------------------------------------------------


def describe(completions: Sequence[Completion], chat: Chat) -> StepFacts:
    """Lengths, truncation, repetition, diversity and, where they were graded, rewards of a batch's completions."""
    count = max(1, len(completions))
    facts: StepFacts = {
        "completion_tokens": sum(len(c.ids) for c in completions) / count,
        "truncated": sum(c.finish == "length" for c in completions) / count,
        "repeated": sum(repeated(c.ids) for c in completions) / count,
        "distinct": distinct([c.prompt for c in completions], [c.ids for c in completions]),
        "empty": sum(_empty(c.ids, chat) for c in completions) / count,
    }
    if facts["truncated"] >= 0.5 and (token := _runs_past(completions, chat)):
        facts["runs_past"] = token
    if thoughts := [n for c in completions if (n := chat.thinking_length(c.ids))]:
        facts["thinking_tokens"] = sum(thoughts) / count
    if any(c.score for c in completions):
        rewards = [c.reward for c in completions if c.reward is not None]
        facts["reward"] = sum(rewards) / len(rewards) if rewards else None
    return facts


def wording(rows: Sequence[Row], examples: Sequence[Example], recipe: Recipe, chat: Chat) -> StepFacts:
    """How many of the completions of ``rows`` repeat the instructions around the teacher's demonstration
    (`evaluation.leakage`), where the student has written them; by ``examples`` a view's own wording is told from what
    it shows."""
    view = VIEWS.get(recipe.views.teacher or "")
    if view is None or recipe.sampler.source != "student":
        return {}
    found = leakage([chat.decode(row.completion) for row in rows], examples[:SHOWN], view)
    if found["share"] is None:
        return {}
    return {"leaked": found["share"], **({"leaked_as": found["phrases"][0]} if found["phrases"] else {})}


def _empty(ids: Sequence[int], chat: Chat) -> bool:
    """Whether a completion has no text: a stop token and nothing but white space before it."""
    return len(ids) <= 8 and not chat.decode(list(ids)).strip()


def _runs_past(completions: Sequence[Completion], chat: Chat) -> str:
    """The special token that most of the completions which were cut contain: had it been a stop id, they would have
    ended there. Empty if there is none."""
    cut = [set(c.ids) for c in completions if c.finish == "length"]
    found = Counter(token for ids in cut for token in ids & chat.special_ids)
    token, count = found.most_common(1)[0] if found else (0, 0)
    return chat.tokenizer.decode([token], skip_special_tokens=False) if 2 * count > len(cut) else ""


def describe_demonstrations(examples: Sequence[Example], prompts: Prompts) -> dict[str, float]:
    """What the demonstrations are like, under the names of `describe`, from at most 64 of them; empty without any.

    Those of several turns are left out: what the student writes is one turn.
    """
    shown = [e for e in examples if isinstance(e.demonstration, str) or len(e.demonstration or ()) == 1]
    by_id = {e.id: written for e in shown[:SHOWN] if e.demonstration and (written := _written(e, prompts))}
    if not by_id:
        return {}
    ids = list(by_id.values())
    return {
        "completion_tokens": sum(map(len, ids)) / len(ids),
        "repeated": sum(map(repeated, ids)) / len(ids),
        "distinct": distinct([prompts.student(e) for e in shown if e.id in by_id], ids),
    }


def _written(example: Example, prompts: Prompts) -> list[int] | None:
    """The demonstration as the student would write it; None where its chat template has no way to (a teacher may see
    it even so)."""
    try:
        return prompts.demonstrated(example)[0]
    except TemplateRefusal:
        return None


def distinct(prompts: Sequence[list[int]], completions: Sequence[list[int]]) -> float:
    """Distinct completions per distinct prompt, at most 1: near 0 where all prompts get the same completion."""
    return min(1.0, len(set(map(tuple, completions))) / max(1, len(set(map(tuple, prompts)))))


def repeated(ids: Sequence[int]) -> float:
    """The share of a completion's 4-grams that occurred in it before; 0 for one too short to have two."""
    grams = [tuple(ids[i : i + NGRAM]) for i in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0
