"""The progress of training on stderr: a live bar on a terminal, elsewhere a plain line about every tenth of a stage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.text import Text

from sdft_cli import console as terminal
from sdft_cli.console import clock, number
from sdft_cli.runs import completeness
from sdft_cli.runs.records import (
    EndingRow,
    EvalRow,
    GuardRow,
    MarkRecord,
    Scores,
    ShortScore,
    StageId,
    StepFacts,
    StepRow,
    Summary,
    TaskSummary,
)
from sdft_cli.stats import selection

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress


def step_line(row: StepFacts) -> str:
    """``loss 0.1234  KL 0.0200  ...`` of a step; what its method does not have is left out.

    ``KL`` is that of the teacher from the student, or the sampled estimate of the reverse where only that is known.
    """
    kl = row.get("kl") if row.get("kl") is not None else row.get("reverse_kl")
    fields = (
        ("loss", row.get("loss"), ".4f"),
        ("KL", kl, ".4f"),
        ("entropy", row.get("entropy"), ".3f"),
        ("length", row.get("completion_tokens"), ".1f"),
        ("tokens/s", row.get("tokens_per_second"), ",.0f"),
    )
    return "  ".join(f"{label} {value:{form}}" for label, value, form in fields if value is not None)


def _quick_cell(name: str, score: ShortScore) -> str:
    """``science 0.917 (n 60, cut 0.100)``; the loss where nothing could be scored; empty where there is neither."""
    if score["n"]:
        told = [f"n {score['n']}", *completeness.words(score, score["accuracy"])]
        return f"{name} {number(score['accuracy'])} ({', '.join(told)})"
    return f"{name} loss {number(score['loss']['value'])} (n {score['loss']['rows']})" if "loss" in score else ""


def _stage_cell(task: str, summary: TaskSummary) -> str:
    if summary["accuracy"] is not None:
        return _accuracy(task, summary)
    return f"{task} loss {number(summary['loss']['value'])}" if "loss" in summary else ""


def _accuracy(name: str, summary: Summary) -> str:
    told = completeness.words(summary, summary["accuracy"])
    return f"{name} {number(summary['accuracy'])}" + (f" ({', '.join(told)})" if told else "")


def _measured(mark: MarkRecord) -> str:
    """What a mark was chosen by."""
    if mark["validation"] is None and (loss := mark.get("loss")) is not None:
        return f"{number(loss)} nats per token"
    return number(mark["validation"])


def _by_chance(best: MarkRecord, last: MarkRecord) -> str:
    """That the best step's accuracy says no more for it than for the last one; empty where it does, and of losses."""
    higher, lower, n = best["validation"], last["validation"], best.get("n")
    if higher is None or lower is None or not n or not selection.by_chance(higher, lower, n):
        return ""
    return f"with {n} validation rows, the last step's {number(lower)} is within one standard error of it"


def _is_better(best: MarkRecord, last: MarkRecord) -> bool:
    if best["validation"] is not None:
        return best["validation"] > (last["validation"] or 0.0)
    best_loss, last_loss = best.get("loss"), last.get("loss")
    return best_loss is not None and last_loss is not None and best_loss < last_loss


class TrainingDisplay:
    """Shows what training logs; nothing at all if ``quiet``."""

    def __init__(self, quiet: bool = False, console: Console | None = None):
        self.console = console or terminal.err
        self.quiet = quiet
        self.live: Live | None = None
        self.bar: Progress | None = None
        self.stage, self.stages, self.steps = StageId(0, ""), 0, 1
        self.first: tuple[int, float] | None = None  # the stage's first step in this process, and when it was shown
        self.printed = 0

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_stage(self, stage: StageId, stages: int, steps: int) -> None:
        """A stage of ``steps`` steps begins, one of ``stages``; if it is resumed, its first row may be any step's."""
        self.close()
        self.stage, self.stages, self.steps = stage, stages, max(1, steps)
        self.first, self.printed = None, 0
        if self.quiet:
            return
        if terminal.is_live(self.console):
            self._start_live()
        else:
            self.note(f"{self._stage()}  {steps} steps")

    def step(self, row: StepRow) -> None:
        now, step = time.monotonic(), row["step"]
        self.first = self.first or (step, now)
        if self.quiet:
            return
        if self.live and self.bar:
            self.bar.update(self.bar.task_ids[0], completed=step, left=self._left(step, now))
            self.live.update(Group(self.bar, Text("  " + step_line(row), overflow="ellipsis", no_wrap=True)))
            if step >= self.steps:
                self.close()
        elif self._due(step):
            self.printed = step
            self.note(f"{self._stage()}  step {step}/{self.steps}  {step_line(row)}  left {self._left(step, now)}")

    def eval(self, row: EvalRow) -> None:
        """The quick accuracies of a mid-training evaluation, and the losses of tasks without one."""
        scores = {**row["scores"], **({"prior": row["suite"]} if row["suite"] else {})}
        cells = [cell for name, score in scores.items() if (cell := _quick_cell(name, score))]
        self.note(f"  eval at step {row['step']}  " + "  ".join(cells))
        if note := row.get("note"):
            self.note(f"  {note}")

    def guard(self, row: GuardRow) -> None:
        """A warning; a stop ends the run with an error that says the same."""
        if row["level"] == "warn":
            self.note(f"warning: {row['guard']} at step {row['step']}: {row['text']} ({row['hint']})")

    def ending(self, row: EndingRow) -> None:
        """How a stage ended, unless with its last step and no better one before it."""
        best, last = row["best"], row["last"]
        if row["why"] == "prior dropped":
            model = f"the model of step {row['model_of']}" if row["model_of"] else "the model it began with"
            prior = number(last["prior"] if last else None)
            self.note(f"stage stopped at step {row['step']}: prior suite at {prior}; it ends with {model}")
        elif row["why"] == "best validation" and best:
            luck = f"; {chance}" if last and (chance := _by_chance(best, last)) else ""
            self.note(
                f"stage ends with the model of step {row['model_of']}, the best on validation: {_measured(best)}{luck}"
            )
        elif best and last and _is_better(best, last):
            figures = f"{_measured(best)} at step {best['step']}, {_measured(last)} at the last"
            what = "loss" if best["validation"] is None else "accuracy"
            advice = _by_chance(best, last) or "--set best=use ends a stage with its best step"
            self.note(f"best validation {what}: {figures} ({advice})")

    def scores(self, scores: Scores) -> None:
        """The accuracies measured after a stage, and the losses of tasks without one."""
        cells = [cell for task, summary in scores["tasks"].items() if (cell := _stage_cell(task, summary))]
        if scores["suite"]:
            cells.append(_accuracy("prior suite", scores["suite"]))
        self.note(f"after stage {scores['stage']} ({scores['task']}): " + ", ".join(cells))

    def note(self, text: str) -> None:
        """One line of plain text, above the live display while there is one."""
        if not self.quiet:
            self.console.print(Text(text), soft_wrap=not self.live)

    def close(self) -> None:
        """Stop the live display and leave its last state on screen; may be called twice."""
        if self.live:
            self.live.stop()
        self.live = self.bar = None

    def _start_live(self) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("step"),
            MofNCompleteColumn(),
            TextColumn("left {task.fields[left]}"),
            console=self.console,
            expand=True,
        )
        self.bar.add_task(self._stage(), total=self.steps, left="-:--")
        self.live = Live(self.bar, console=self.console, refresh_per_second=4)
        self.live.start()

    def _stage(self) -> str:
        return f"stage {self.stage.number}/{self.stages} {self.stage.task}"

    def _left(self, step: int, now: float) -> str:
        """Time left in this stage, from the pace since the first step shown."""
        first, since = self.first or (step, now)
        return clock((self.steps - step) * (now - since) / (step - first)) if step > first else "-:--"

    def _due(self, step: int) -> bool:
        """Whether a plain line is due: at the first row and the last, and every tenth of the stage or 50 steps,
        whichever is less."""
        every = max(1, min(50, self.steps // 10))
        return not self.printed or step >= self.steps or step // every > self.printed // every
