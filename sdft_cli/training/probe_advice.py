"""Warnings drawn from what a probe measured: reasons to change something before training."""

from __future__ import annotations

from collections.abc import Iterator

from sdft_cli import console
from sdft_cli.evaluation import scorable
from sdft_cli.training.probe_record import Advice, TaskProbe

#: Where warnings begin: accuracies, and a share of rows.
WEAK, SOLVED, MANY_TOO_LONG = 0.5, 0.95, 0.05

#: What kind of warning, the message, and the hint.
Reason = tuple[str, str, str]


def advise(task: TaskProbe) -> list[Advice]:
    """The warnings about one task."""
    reasons = [*_about_teacher(task), *_about_rows(task), *_about_steps(task)]
    return [{"task": task["task"], "what": what, "message": message, "hint": hint} for what, message, hint in reasons]


def _about_teacher(task: TaskProbe) -> Iterator[Reason]:
    gain = task["gain"]
    if gain is None:
        needed = "demonstrations and answers: see data/README.md and `sdft prepare --demonstrations answer`"
        asked = task["student"]["unscored"] and task["teacher"]["unscored"]  # both have answered
        message = "no row could be scored for both student and teacher"
        yield "unknown", message, scorable.HINT if asked else f"the rows need {needed}"
        return
    view = "check a row with `sdft train --dry-run`; try another --set views.teacher=VIEW or a stronger model"
    low, high = gain["interval"]
    difference = f"{console.number(gain['value'], signed=True)} {console.span(gain['interval'], signed=True)}"
    if high < 0:
        yield "teacher_worse", f"the teacher is worse than the student: {difference}", view
    elif low <= 0:
        message = f"the teacher is not clearly better than the student: {difference} includes 0"
        yield "teacher_not_better", message, f"raise --limit for a narrower interval; {view}"
    student, teacher = task["student"]["accuracy"], task["teacher"]["accuracy"]
    if teacher is not None and teacher < WEAK:
        yield "teacher_weak", f"the teacher is right on only {teacher:.0%} of the rows: it will teach errors", view
    if student is not None and student > SOLVED:
        yield "student_solves", f"the student already solves {student:.0%} of the rows", "leave the task out"


def _about_rows(task: TaskProbe) -> Iterator[Reason]:
    p = task["prompts"]
    if p["too_long"] > MANY_TOO_LONG * p["rows"]:
        message = (
            f"{p['too_long']} of {p['rows']} prompts are too long ({p['over_max_prompt_tokens']} over "
            f"train.max_prompt_tokens={p['max_prompt_tokens']}, {p['over_window']} over the window of {p['window']})"
        )
        hint = "raise the limit, shorten the demonstrations, or use a model with a longer window"
        yield "prompts_too_long", message, hint


def _about_steps(task: TaskProbe) -> Iterator[Reason]:
    phases = task["training"]["phases"]
    if any(phase["seconds"] is None for phase in phases):
        hint = "lower train.micro_batch_tokens or engine.max_batch, or set lora.rank"
        yield "out_of_memory", "a training step does not fit into memory", hint
    elif any(phase["signal"] == 0 for phase in phases):
        message = "no row of the timed step carried a signal: such steps change nothing, and others take longer"
        hint = "equal rewards teach nothing: raise sampler.n, or start from a model that sometimes succeeds"
        yield "no_signal", message, hint
