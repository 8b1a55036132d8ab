"""Guards: watch the step rows of one phase; a run that collapses is warned about, then stopped, by name.

    non-finite          the loss or the gradient norm is not finite: stops at once, and cannot be switched off
    repetition          completions repeat their own 4-grams
    truncation          nearly all completions hit the token limit, which they did not at the start
    length-runaway      completions have grown far beyond both their start and the demonstrations
    length-collapse     completions have shrunk far below both
    entropy-collapse    the student's entropy is near 0, and its completions have changed for the worse
    divergence-spike    the KL to the teacher, or the loss on given texts, is far above its start

A figure is the median over the latest steps; its start is the median over the phase's first steps. A guard warns when
its limit is passed, and stops the run when it has been passed for ``patience`` steps in a row. Its state is a function
of the step rows alone: a resumed run rebuilds it from what was logged.

Left out: whether answers are right. A task learned well brings KL and entropy to nearly 0 too, so low entropy alone is
no collapse; a student that is confident, fluent, different from prompt to prompt and wrong shows only in evaluations.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import SdftError
from sdft_cli.runs.records import GuardFacts, StepFacts

LATEST = 5  # steps whose median is a figure's present value
GROWTH = 32  # tokens above the start that are no runaway yet: the lengths of short completions vary by factors
SURE = 0.05  # nats per token; a student with more entropy has not collapsed
LEAST = 0.5  # nats per token; a start below it counts as this much, for a multiple of next to nothing is no spike

#: Keys of step rows that the rules look at.
Figure = Literal[
    "loss", "kl", "reverse_kl", "entropy", "completion_tokens", "truncated", "repeated", "distinct", "reward"
]
#: Those that mean something only where at least one completion of the batch carries signal.
_OF_SIGNAL: tuple[Figure, ...] = ("loss", "kl", "reverse_kl", "entropy")
_FIGURES: tuple[Figure, ...] = (*_OF_SIGNAL, "completion_tokens", "truncated", "repeated", "distinct", "reward")
#: The distances that divergence-spike knows, the one it prefers first.
_DISTANCES: dict[Figure, str] = {
    "kl": "KL(teacher‖student)",
    "reverse_kl": "the sampled KL(student‖teacher)",
    "loss": "the loss",
}


class NonFinite(SdftError):
    """A step whose loss or gradient norm is not finite, discarded before it touched the weights."""

    def __init__(self, loss: float, norm: float):
        super().__init__(f"the loss is {loss}, the gradient norm {norm}", "lower train.lr, or raise train.warmup_steps")
        self.facts: StepFacts = {"loss": loss, "grad_norm": norm}


@dataclass(frozen=True)
class Alarm:
    """A limit is passed. One that is not ``fatal`` only warns, however long it lasts."""

    text: str
    fatal: bool = True


class Figures:
    """The first and the latest values of what is watched. ``demonstrations`` has the same figures of demonstrations
    (`batches.Batches.demonstrations`); ``source`` says where completions come from."""

    def __init__(self, window: int, source: str, demonstrations: Mapping[str, float]):
        self.window, self.source, self.demonstrations = window, source, demonstrations
        self.first: dict[Figure, list[float]] = {key: [] for key in _FIGURES}
        self.latest: dict[Figure, deque[float]] = {key: deque(maxlen=LATEST) for key in _FIGURES}
        self.present: set[Figure] = set()  # what the last row had; a step without signal has no KL and no entropy

    def take(self, row: StepFacts) -> None:
        """One more step."""
        self.present.clear()
        for key in _FIGURES:
            value = row.get(key)
            if value is None or not math.isfinite(value) or (key in _OF_SIGNAL and not row.get("signal", 1)):
                continue
            self.present.add(key)
            self.latest[key].append(value)
            if len(self.first[key]) < self.window:
                self.first[key].append(value)

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


# the rules: figures and a limit -> an alarm or None --------------------------------------------------------------

Rule = Callable[[Figures, float], Alarm | None]


def repetition(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of 4-grams that occurred earlier in the same completion; repetitive demonstrations raise it."""
    bound = limit + (1 - limit) * f.demonstrations.get("repeated", 0.0)
    if f.now("repeated") <= bound:
        return None
    return Alarm(f"{_share(f.now('repeated'))} of a completion's 4-grams are repeats (limit {_share(bound)})")


def truncation(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of completions. Where most were cut from the start, the token limit is too small for this model:
    that is worth a warning, but is no collapse."""
    start, now = f.least("truncated"), f.now("truncated")
    if now < limit:
        return None
    text = f"{_share(now)} of completions are cut at the token limit, {_share(start)} at the start"
    if start <= limit / 2:
        return Alarm(text)
    return Alarm(text, fatal=False) if f.settled("truncated") else None


def length_runaway(f: Figures, limit: float) -> Alarm | None:
    """``limit``: a multiple of the start, or of the demonstrations' length if that is more."""
    if f.graded_better():
        return None
    start, now = f.most("completion_tokens"), f.now("completion_tokens")
    normal = max(start, f.demonstrations.get("completion_tokens", 0.0))
    return Alarm(_lengths(f, now, start)) if now > max(limit * normal, normal + GROWTH) else None


def length_collapse(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of the start, or of the demonstrations' length if that is less."""
    if f.graded_better():
        return None
    start, now = f.most("completion_tokens"), f.now("completion_tokens")
    normal = min(start, f.demonstrations.get("completion_tokens", math.inf))
    return Alarm(_lengths(f, now, start)) if now < limit * normal else None


def entropy_collapse(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of the start. A learned task looks the same, so something else must look wrong too."""
    if f.now("entropy") > min(SURE, limit * f.most("entropy")):
        return None
    text = f"entropy is {f.now('entropy'):.2g} nats per token, {f.most('entropy'):.2g} at the start, and "
    return Alarm(text + symptom) if (symptom := _symptom(f)) else None


def divergence_spike(f: Figures, limit: float) -> Alarm | None:
    """``limit``: a multiple of the start. The loss counts only without a KL, and not if it is a policy gradient's,
    which is no distance."""
    key = next(key for key in _DISTANCES if f.has(key))
    if key not in f.present or (key == "loss" and f.source == "student"):
        return None
    if f.now(key) <= limit * max(f.least(key), LEAST):
        return None
    return Alarm(f"{_DISTANCES[key]} is {f.now(key):.2f} nats per token, {f.least(key):.2f} at the start")


def _symptom(f: Figures) -> str:
    """What tells a collapse from a task that has been learned; empty if nothing does."""
    if f.has("repeated") and f.now("repeated") > max(f.least("repeated"), f.demonstrations.get("repeated", 0.0)) + 0.25:
        return f"{_share(f.now('repeated'))} of 4-grams are repeats"
    if f.has("truncated") and f.now("truncated") > f.least("truncated") + 0.25:
        return f"{_share(f.now('truncated'))} of completions are cut"
    if f.has("distinct") and f.now("distinct") < f.demonstrations.get("distinct", 0.0) / 2:
        return "different prompts get the same completion"
    if f.has("reward") and f.now("reward") < f.least("reward") / 2:
        return f"rewards have fallen from {f.least('reward'):.2f} to {f.now('reward'):.2f}"
    if f.has("completion_tokens") and "completion_tokens" in f.demonstrations:
        now, ends = f.now("completion_tokens"), (f.most("completion_tokens"), f.demonstrations["completion_tokens"])
        if not min(ends) / 2 <= now <= max(ends) * 2:
            return _lengths(f, now, ends[0])
    return ""


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _lengths(f: Figures, now: float, start: float) -> str:
    text = f"completions have {now:.1f} tokens, {start:.1f} at the start"
    return text + (f" and {f.demonstrations['completion_tokens']:.1f} in demonstrations" if f.demonstrations else "")


_SAMPLED, _ALL = ("student", "teacher"), ("student", "teacher", "dataset", "corpus")
#: Guard -> its rule, the figure it needs, and the sources of completions for which it means something.
#: Of several that stop at once, the first names the stop.
RULES: dict[str, tuple[Rule, Figure, tuple[str, ...]]] = {
    "repetition": (repetition, "repeated", _SAMPLED),
    "truncation": (truncation, "truncated", _SAMPLED),
    "length-runaway": (length_runaway, "completion_tokens", ("student",)),
    "length-collapse": (length_collapse, "completion_tokens", ("student",)),
    "entropy-collapse": (entropy_collapse, "entropy", ("student",)),
    "divergence-spike": (divergence_spike, "loss", _ALL),
}


class Guards:
    """The guards of one phase, whose recipe this is; ``demonstrations`` as in `Figures`. ``table`` is put before the
    phase's keys in hints: "second_phase." for a second phase."""

    def __init__(self, recipe: Recipe, demonstrations: Mapping[str, float], table: str = ""):
        self.recipe, self.table, settings = recipe, table, recipe.guards
        self.figures = Figures(settings.window, recipe.sampler.source, demonstrations)
        limits = {name: getattr(settings, name.replace("-", "_")) for name in RULES if settings.enabled}
        self.limits = {n: x for n, x in limits.items() if x is not None and recipe.sampler.source in RULES[n][2]}
        self.passed: Counter[str] = Counter()  # steps in a row past a guard's limit
        self.calm: Counter[str] = Counter()  # steps in a row within it
        self.warned: set[str] = set()

    def look(self, row: StepFacts) -> list[GuardFacts]:
        """The findings after a step; stops come first."""
        values = {"loss": row.get("loss", 0.0), "grad_norm": row.get("grad_norm", 0.0)}
        if broken := [f"{key} is {value}" for key, value in values.items() if not math.isfinite(value)]:
            return [self._finding("non-finite", "stop", " and ".join(broken))]
        self.figures.take(row)
        findings = []
        for name, limit in self.limits.items():
            rule, figure, _ = RULES[name]
            if figure in self.figures.present:  # otherwise the step counts neither for nor against it
                findings.append(self._judge(name, rule(self.figures, limit)))
        stops_first = sorted((f for f in findings if f), key=lambda f: f["level"] != "stop")
        if stops_first and stops_first[0]["level"] == "stop":
            self.passed.clear()  # a run that is resumed all the same gets the whole patience again
        return stops_first

    def _judge(self, name: str, alarm: Alarm | None) -> GuardFacts | None:
        patience = self.recipe.guards.patience
        self.passed[name] = self.passed[name] + 1 if alarm and alarm.fatal else 0
        self.calm[name] = 0 if alarm else self.calm[name] + 1
        if self.calm[name] == patience:
            self.warned.discard(name)  # it has recovered: the next alarm is worth a new warning
        if alarm is None:
            return None
        if self.passed[name] == patience:
            return self._finding(name, "stop", alarm.text)
        if name in self.warned:
            return None
        self.warned.add(name)
        return self._finding(name, "warn", alarm.text)

    def _finding(self, name: str, level: Literal["warn", "stop"], text: str) -> GuardFacts:
        return {"guard": name, "level": level, "text": text, "hint": self._hint(name)}

    def _hint(self, name: str) -> str:
        table, teacher = self.table, self.recipe.teacher
        changes = [f"lower {table}train.lr"]
        if name in ("non-finite", "divergence-spike"):
            changes.append(f"raise {table}train.warmup_steps")
        if name == "truncation":
            changes.insert(0, f"raise {table}sampler.max_new_tokens")
        if name in ("truncation", "length-runaway") and not self.recipe.objective.mask_truncated:
            changes.append(f"set {table}objective.mask_truncated=true")
        if name == "non-finite":
            return ", or ".join(changes)
        if teacher and teacher.update_rate > 0:
            live = teacher.update_rate == 1 and teacher.update_every == 1
            ema = f"set {table}teacher=ema (a live teacher follows the student)"
            changes.append(ema if live else f"slow {table}teacher down")
        return ", or ".join(changes) + f"; guards.{name.replace('-', '_')}=none switches this guard off"
