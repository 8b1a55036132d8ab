"""Guards: watch the step rows of one phase; a run that collapses is warned about, then stopped, by name.

    non-finite          loss or gradient norm is no number: stops at once, and cannot be switched off
    repetition          completions repeat their own 4-grams
    truncation          nearly all completions hit the token limit, which they did not at the start
    length-runaway      completions have grown far beyond both their start and the demonstrations
    length-collapse     completions have shrunk far below both
    entropy-collapse    the student has become sure of everything, and what it writes is odd
    divergence-spike    KL to the teacher, or the loss on given texts, is far above its start

A figure is the median of the latest steps; its start is that of the phase's first. A guard warns when its limit is
passed, and stops when it has been passed for ``patience`` steps in a row. The state is a function of the rows alone:
a resumed run builds it anew from what was logged.

Left out: whether answers are right. A task well learned brings KL and entropy to nearly 0 as well, so low entropy
alone is no collapse; a student that is sure, fluent, different from prompt to prompt and wrong is for probes to see.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import SdftError

LATEST = 5  # steps whose median is a figure's present value
GROWTH = 32  # tokens above the start that are no runaway yet: completions of a few tokens vary by factors
SURE = 0.05  # nats a token; above it a student is not sure of everything
LEAST = 0.5  # nats a token that a start counts as at least: a multiple of next to nothing is no spike

#: What rules look at; the first three mean something only where a row carries signal.
_LOSSES = ("loss", "kl", "entropy")
_FIGURES = (*_LOSSES, "completion_tokens", "truncated", "repeated", "distinct", "reward")


class NonFinite(SdftError):
    """A step whose loss or gradient norm is no finite number, given up before it touched the weights."""

    def __init__(self, loss: float, norm: float):
        super().__init__(f"the loss is {loss}, the gradient norm {norm}", "lower train.lr, or raise train.warmup_steps")
        self.row = {"loss": loss, "grad_norm": norm}


@dataclass(frozen=True)
class Finding:
    """What a guard says of a step: ``text`` has the figures, ``hint`` the recipe's keys to turn."""

    guard: str
    level: Literal["warn", "stop"]
    text: str
    hint: str


@dataclass(frozen=True)
class Alarm:
    """A limit is passed. One that is not ``fatal`` only warns."""

    text: str
    fatal: bool = True


class Figures:
    """The first and the latest values of what is watched. ``shown`` holds what demonstrations are like, by the same
    names (`batches.Batches.demonstrations`); ``source`` says where completions come from."""

    def __init__(self, window: int, source: str, shown: Mapping[str, float]):
        self.window, self.source, self.shown = window, source, shown
        self.first: dict[str, list[float]] = {key: [] for key in _FIGURES}
        self.latest: dict[str, deque[float]] = {key: deque(maxlen=LATEST) for key in _FIGURES}
        self.told: set[str] = set()  # what the last row told; a step without signal tells nothing of KL or entropy

    def take(self, row: Mapping[str, Any]) -> None:
        """One more step."""
        self.told.clear()
        for key in _FIGURES:
            value = row.get(key)
            if value is None or not math.isfinite(value) or (key in _LOSSES and not row.get("signal", 1)):
                continue
            self.told.add(key)
            self.latest[key].append(value)
            if len(self.first[key]) < self.window:
                self.first[key].append(value)

    def has(self, key: str) -> bool:
        return bool(self.latest[key])

    def now(self, key: str) -> float:
        return median(self.latest[key])

    def least(self, key: str) -> float:
        """The start of a figure that must not rise. Where the first step broke the model, only the first row is from
        before, so it counts beside the first rows' median."""
        return min(self.first[key][0], median(self.first[key]))

    def most(self, key: str) -> float:
        """The start of a figure that must not fall."""
        return max(self.first[key][0], median(self.first[key]))

    def settled(self, key: str) -> bool:
        """Whether the start is known from a whole window."""
        return len(self.first[key]) == self.window

    def graded_better(self) -> bool:
        """Whether rewards have risen: then a change of length is what was asked for."""
        return self.has("reward") and self.now("reward") > median(self.first["reward"])


# the rules: figures and a limit -> an alarm or None --------------------------------------------------------------

Rule = Callable[[Figures, float], Alarm | None]


def repetition(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of 4-grams that stood in the same completion before; demonstrations that repeat raise it."""
    bound = limit + (1 - limit) * f.shown.get("repeated", 0.0)
    if f.now("repeated") <= bound:
        return None
    return Alarm(f"{_share(f.now('repeated'))} of a completion's 4-grams are repeats (limit {_share(bound)})")


def truncation(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of completions. Where most were cut from the start, the limit is too small for this model:
    worth a warning, but no change for the worse."""
    start, now = f.least("truncated"), f.now("truncated")
    if now < limit:
        return None
    text = f"{_share(now)} of completions are cut at the token limit, {_share(start)} at the start"
    if start <= limit / 2:
        return Alarm(text)
    return Alarm(text, fatal=False) if f.settled("truncated") else None


def length_runaway(f: Figures, limit: float) -> Alarm | None:
    """``limit``: times the start, or the demonstrations' length if that is more."""
    if f.graded_better():
        return None
    start, now = f.most("completion_tokens"), f.now("completion_tokens")
    normal = max(start, f.shown.get("completion_tokens", 0.0))
    return Alarm(_lengths(f, now, start)) if now > max(limit * normal, normal + GROWTH) else None


def length_collapse(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of the start, or of the demonstrations' length if that is less."""
    if f.graded_better():
        return None
    start, now = f.most("completion_tokens"), f.now("completion_tokens")
    normal = min(start, f.shown.get("completion_tokens", math.inf))
    return Alarm(_lengths(f, now, start)) if now < limit * normal else None


def entropy_collapse(f: Figures, limit: float) -> Alarm | None:
    """``limit``: share of the start. A learned task looks the same, so something must be odd besides."""
    if f.now("entropy") > min(SURE, limit * f.most("entropy")):
        return None
    text = f"entropy is {f.now('entropy'):.2g} nats a token, {f.most('entropy'):.2g} at the start, and "
    return Alarm(text + odd) if (odd := _odd(f)) else None


def divergence_spike(f: Figures, limit: float) -> Alarm | None:
    """``limit``: times the start. The loss only where there is no KL, and not a policy gradient's, no distance."""
    key = "kl" if f.has("kl") else "loss"
    if key not in f.told or (key == "loss" and f.source == "student"):
        return None
    if f.now(key) <= limit * max(f.least(key), LEAST):
        return None
    name = "KL to the teacher" if key == "kl" else "the loss"
    return Alarm(f"{name} is {f.now(key):.2f} nats a token, {f.least(key):.2f} at the start")


def _odd(f: Figures) -> str:
    """What tells a collapse from a task that is learned; empty if nothing does."""
    if f.has("repeated") and f.now("repeated") > max(f.least("repeated"), f.shown.get("repeated", 0.0)) + 0.25:
        return f"{_share(f.now('repeated'))} of 4-grams are repeats"
    if f.has("truncated") and f.now("truncated") > f.least("truncated") + 0.25:
        return f"{_share(f.now('truncated'))} of completions are cut"
    if f.has("distinct") and f.now("distinct") < f.shown.get("distinct", 0.0) / 2:
        return "different prompts get the same completion"
    if f.has("reward") and f.now("reward") < f.least("reward") / 2:
        return f"rewards have fallen from {f.least('reward'):.2f} to {f.now('reward'):.2f}"
    if f.has("completion_tokens") and "completion_tokens" in f.shown:
        now, ends = f.now("completion_tokens"), (f.most("completion_tokens"), f.shown["completion_tokens"])
        if not min(ends) / 2 <= now <= max(ends) * 2:
            return _lengths(f, now, ends[0])
    return ""


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _lengths(f: Figures, now: float, start: float) -> str:
    text = f"completions have {now:.1f} tokens, {start:.1f} at the start"
    return text + (f" and {f.shown['completion_tokens']:.1f} in demonstrations" if f.shown else "")


_WRITTEN, _ALL = ("student", "teacher"), ("student", "teacher", "dataset", "corpus")
#: Guard -> its rule, the figure it cannot do without, and the sources of completions for which it means something.
#: Of several that stop at once, the first names the stop.
RULES: dict[str, tuple[Rule, str, tuple[str, ...]]] = {
    "repetition": (repetition, "repeated", _WRITTEN),
    "truncation": (truncation, "truncated", _WRITTEN),
    "length-runaway": (length_runaway, "completion_tokens", ("student",)),
    "length-collapse": (length_collapse, "completion_tokens", ("student",)),
    "entropy-collapse": (entropy_collapse, "entropy", ("student",)),
    "divergence-spike": (divergence_spike, "loss", _ALL),
}


class Guards:
    """The guards of one phase, whose recipe this is; ``shown`` as in `Figures`. ``table`` stands before the phase's
    keys in hints: "second_phase." for a second phase."""

    def __init__(self, recipe: Recipe, shown: Mapping[str, float], table: str = ""):
        self.recipe, self.table, settings = recipe, table, recipe.guards
        self.figures = Figures(settings.window, recipe.sampler.source, shown)
        limits = {name: getattr(settings, name.replace("-", "_")) for name in RULES if settings.enabled}
        self.limits = {n: x for n, x in limits.items() if x is not None and recipe.sampler.source in RULES[n][2]}
        self.passed: Counter[str] = Counter()  # steps in a row past a guard's limit
        self.calm: Counter[str] = Counter()  # steps in a row within it
        self.warned: set[str] = set()

    def look(self, row: Mapping[str, Any]) -> list[Finding]:
        """What there is to say after the step of ``row``; stops come first."""
        broken = [f"{key} is {row[key]}" for key in ("loss", "grad_norm") if not math.isfinite(row.get(key, 0))]
        if broken:
            return [self._finding("non-finite", "stop", " and ".join(broken))]
        self.figures.take(row)
        found = []
        for name, limit in self.limits.items():
            rule, figure, _ = RULES[name]
            if figure in self.figures.told:  # else the step counts neither for nor against it
                found.append(self._judge(name, rule(self.figures, limit)))
        findings = sorted((f for f in found if f), key=lambda f: f.level != "stop")
        if findings and findings[0].level == "stop":
            self.passed.clear()  # a run that is resumed all the same gets as many steps again
        return findings

    def _judge(self, name: str, alarm: Alarm | None) -> Finding | None:
        patience = self.recipe.guards.patience
        self.passed[name] = self.passed[name] + 1 if alarm and alarm.fatal else 0
        self.calm[name] = 0 if alarm else self.calm[name] + 1
        if self.calm[name] == patience:
            self.warned.discard(name)  # it has recovered, and would be warned about again
        if alarm is None:
            return None
        if self.passed[name] == patience:
            return self._finding(name, "stop", alarm.text)
        if name in self.warned:
            return None
        self.warned.add(name)
        return self._finding(name, "warn", alarm.text)

    def _finding(self, name: str, level: Literal["warn", "stop"], text: str) -> Finding:
        return Finding(name, level, text, self._hint(name))

    def _hint(self, name: str) -> str:
        at, teacher, masked = self.table, self.recipe.teacher, self.recipe.objective.mask_truncated
        knobs = [f"lower {at}train.lr"]
        if name in ("non-finite", "divergence-spike"):
            knobs.append(f"raise {at}train.warmup_steps")
        if name == "truncation":
            knobs.insert(0, f"raise {at}sampler.max_new_tokens")
        if name in ("truncation", "length-runaway") and not masked:
            knobs.append(f"set {at}objective.mask_truncated=true")
        if name == "non-finite":
            return ", or ".join(knobs)
        if teacher and teacher.update_rate > 0:
            live = teacher.update_rate == 1 and teacher.update_every == 1
            knobs.append(f"set {at}teacher=ema (a live one follows the student)" if live else f"slow {at}teacher down")
        return ", or ".join(knobs) + f"; guards.{name.replace('-', '_')}=none switches this guard off"
