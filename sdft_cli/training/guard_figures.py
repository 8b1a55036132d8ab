"""The figures that guards judge a run by: the first and the latest values of what step rows report."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Literal, get_args

from sdft_cli.config.recipe import Recipe
from sdft_cli.runs.records import ShortScore, StepFacts

LATEST = 5  # steps whose median is a figure's present value

# fmt: off
#: Keys of step rows that the rules look at.
Figure = Literal[
    "loss", "kl", "reverse_kl", "entropy", "grad_norm", "logprob_gap", "completion_tokens", "truncated", "repeated",
    "distinct", "reward", "signal", "empty", "skipped_kl", "skipped_share", "leaked",
]
# fmt: on
_FIGURES: tuple[Figure, ...] = get_args(Figure)
#: Those that mean something only where at least one completion of the batch carries signal.
_OF_SIGNAL: tuple[Figure, ...] = ("loss", "kl", "reverse_kl", "entropy", "grad_norm", "logprob_gap")


class Figures:
    """What is watched in a phase, whose recipe this is. ``demonstrations`` has the figures of demonstrations
    (`batches.Batches.demonstrations`); ``vocabulary`` is the number of the model's tokens, ``steps`` that of the
    phase's steps, and ``start`` the score on its own task that it begins with, where they are known."""

    def __init__(
        self,
        recipe: Recipe,
        demonstrations: Mapping[str, float],
        vocabulary: int | None = None,
        steps: int | None = None,
        start: ShortScore | None = None,
    ):
        self.recipe, self.demonstrations, self.vocabulary, self.start = recipe, demonstrations, vocabulary, start
        self.end = steps
        self.scores: list[ShortScore] = []  # of the phase's own task, evaluation by evaluation
        self.window, self.source = recipe.guards.window, recipe.sampler.source
        self.first: dict[Figure, list[float]] = {key: [] for key in _FIGURES}
        self.latest: dict[Figure, deque[float]] = {key: deque(maxlen=LATEST) for key in _FIGURES}
        self.present: set[Figure] = set()  # what the last row had; a step without signal has no KL and no entropy
        self.silent, self.heard = 0, False  # steps in a row without signal, and whether there was one before
        self.causes: Mapping[str, float] = {}  # of the last row's completions without signal, with their shares
        self.leaked_as = ""  # how the last row's completions repeat the teacher's instructions
        self.runs_past = ""  # what most of the last row's completions that were cut contain
        self.steps = 0

    def take(self, row: StepFacts) -> None:
        """One more step."""
        self.present.clear()
        signal = row.get("signal", 1.0)
        self.silent = 0 if signal else self.silent + 1
        self.heard = self.heard or signal > 0
        self.causes, self.runs_past = row.get("silent", {}), row.get("runs_past", "")
        self.leaked_as = row.get("leaked_as", "")
        for key in _FIGURES:
            value = row.get(key)
            if value is None or not math.isfinite(value) or (key in _OF_SIGNAL and not signal):
                continue
            if key == "logprob_gap" and not self._same_distribution(row):
                continue
            self.present.add(key)
            self.latest[key].append(value)
            if len(self.first[key]) < self.window:
                self.first[key].append(value)
        self.steps += 1

    def _same_distribution(self, row: StepFacts) -> bool:
        """Whether sampler and trainer should agree on the batch: the same weights, and nothing done to the sampler's
        probabilities that is not done to the trainer's."""
        fresh = self.steps % self.recipe.train.updates == 0 and not row.get("staleness")
        return self.plain and fresh

    @property
    def plain(self) -> bool:
        """Whether what is sampled from is what the trainer computes, so that figures of the one hold for the other."""
        sampler, goal = self.recipe.sampler, self.recipe.objective
        return sampler.temperature == goal.logits_temperature and sampler.top_p == 1 and sampler.top_k == 0

    @property
    def over(self) -> bool:
        """Whether this was the phase's last step: what has not shown by now will not."""
        return self.end is not None and self.steps >= self.end

    def has(self, key: Figure) -> bool:
        return bool(self.latest[key])

    def now(self, key: Figure) -> float:
        return median(self.latest[key])

    def least(self, key: Figure) -> float:
        """The start of a figure that must not rise. If the first step broke the model, only the first row is sound,
        so it counts as well as the median of the first rows."""
        return min(self.first[key][0], median(self.first[key]))

    def most(self, key: Figure) -> float:
        """The start of a figure that must not fall."""
        return max(self.first[key][0], median(self.first[key]))

    def settled(self, key: Figure) -> bool:
        """Whether the start is known from a whole window."""
        return len(self.first[key]) == self.window

    def graded_better(self) -> bool:
        """Whether rewards have risen: then completions have changed their length because it pays."""
        return self.has("reward") and self.now("reward") > median(self.first["reward"])
