"""Guards: watch the step rows of one phase; a run that collapses is warned about, then stopped, by name.

    non-finite          the loss or the gradient norm is not finite: stops at once, and cannot be switched off
    repetition          completions repeat their own 4-grams
    truncation          nearly all completions hit the token limit, which they did not at the start
    length-runaway      completions have grown far beyond both their start and the demonstrations
    length-collapse     completions have shrunk far below both
    entropy-collapse    the student's entropy is near 0, and its completions have changed for the worse
    divergence-spike    the KL to the teacher, or the loss on given texts, is far above its start
    uniform             all tokens have become alike to the student
    sampler-gap         sampler and trainer disagree on the log-probs of what was sampled
    no-signal           no completion carries a signal: all are empty, masked, or without a teacher or an advantage
    no-gradient         the gradient is 0 and the loss is not; a warning only
    masked-start        most of the KL lies at the first tokens, which are not trained; a warning only
    no-difference       the teacher has not differed from the student since the start; a warning only
    noisy-samples       the student is so unsure that it writes noise; a warning only
    running-on          completions run to the token limit, though demonstrations are short; a warning only
    leaked-wording      completions repeat the instructions that only the teacher is shown; a warning only
    no-progress         the KL or the loss falls, or nothing moves, and validation rows are answered no better than at
                        the start; a warning only

A figure is the median over the latest steps; its start is the median over the phase's first steps. A guard warns when
its limit is passed, and stops the run when it has been passed for ``patience`` steps in a row. Its state is a function
of the step rows alone: a resumed run rebuilds it from what was logged.

A task learned well brings KL and entropy to nearly 0 too, so low entropy alone is no collapse. A student that is
confident, fluent, different from prompt to prompt and wrong shows only in evaluations, which `no-progress` looks at.
How often its teacher is right, `sdft probe` measures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Literal

from sdft_cli.config.recipe import Recipe
from sdft_cli.errors import SdftError
from sdft_cli.runs.records import GuardFacts, ShortScore, StepFacts
from sdft_cli.training.guard_alarms import Alarm
from sdft_cli.training.guard_figures import Figures
from sdft_cli.training.guard_rules import RULES

__all__ = ["RULES", "Guards", "NonFinite"]


class NonFinite(SdftError):
    """A step whose loss or gradient norm is not finite, discarded before it touched the weights."""

    def __init__(self, loss: float, norm: float):
        super().__init__(f"the loss is {loss}, the gradient norm {norm}", "lower train.lr, or raise train.warmup_steps")
        self.facts: StepFacts = {"loss": loss, "grad_norm": norm}


#: What to change where no rate is to blame.
_HINTS = {
    "sampler-gap": "set runtime.dtype=float32 or engine.name=transformers to see which of the two is at fault",
    "no-signal": "look at the prompts with `sdft train --dry-run`, or set {table}objective.skip_first=0",
    "no-gradient": "raise lora.alpha, or train other parameters",
    "masked-start": "set {table}objective.skip_first=0",
    "no-difference": "choose another {table}views.teacher",
    "leaked-wording": "choose another {table}views.teacher",
    "running-on": "set {table}objective.skip_first=0",
    "no-progress": "see with `sdft probe` how often the teacher is right, or choose another {table}views.teacher",
}


class Guards:
    """The guards of one phase, whose recipe this is; the others as in `Figures`. ``table`` is put before the phase's
    keys in hints: "second_phase." for a second phase."""

    def __init__(
        self,
        recipe: Recipe,
        demonstrations: Mapping[str, float],
        table: str = "",
        vocabulary: int | None = None,
        steps: int | None = None,
        start: ShortScore | None = None,
    ):
        self.recipe, self.table, settings = recipe, table, recipe.guards
        self.figures = Figures(recipe, demonstrations, vocabulary, steps, start)
        limits = {name: getattr(settings, name.replace("-", "_")) for name in RULES if settings.enabled}
        self.limits = {n: x for n, x in limits.items() if x is not None and recipe.sampler.source in RULES[n][2]}
        self.passed: Counter[str] = Counter()  # steps in a row past a guard's limit
        self.calm: Counter[str] = Counter()  # steps in a row within it
        self.warned: set[str] = set()

    def evaluated(self, score: ShortScore | None) -> None:
        """The phase's own task has been evaluated; `look` at the step comes after it."""
        if score is not None:
            self.figures.scores.append(score)

    def look(self, row: StepFacts) -> list[GuardFacts]:
        """The findings after a step; stops come first."""
        values = {"loss": row.get("loss", 0.0), "grad_norm": row.get("grad_norm", 0.0)}
        if broken := [f"{key} is {value}" for key, value in values.items() if not math.isfinite(value)]:
            return [self._finding("non-finite", "stop", Alarm(" and ".join(broken)))]
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
            return self._finding(name, "stop", alarm)
        if name in self.warned:
            return None
        self.warned.add(name)
        return self._finding(name, "warn", alarm)

    def _finding(self, name: str, level: Literal["warn", "stop"], alarm: Alarm) -> GuardFacts:
        return {"guard": name, "level": level, "text": alarm.text, "hint": self._hint(name, alarm.hint)}

    def _hint(self, name: str, own: str = "") -> str:
        """What to change; ``own``: what the alarm says of its cause."""
        off = f"guards.{name.replace('-', '_')}=none switches this guard off"
        if own or name in _HINTS:
            return f"{(own or _HINTS[name]).replace('{table}', self.table)}; {off}"
        table, teacher = self.table, self.recipe.teacher
        changes = [f"lower {table}train.lr"]
        if name in ("non-finite", "divergence-spike", "uniform"):
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
        return f"{', or '.join(changes)}; {off}"
