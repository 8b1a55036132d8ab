"""A probe in the terminal: a table per task, what training would need, and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from rich import box
from rich.table import Table

from sdft_cli import console
from sdft_cli.training.cost_estimates import GIB, memory_text
from sdft_cli.training.probe_record import Pace, ProbeReport, TaskProbe

_SIDES: tuple[tuple[str, Literal["student", "student_sampled", "teacher"]], ...] = (
    ("student", "student"),
    ("student, temperature 1", "student_sampled"),
    ("teacher", "teacher"),
)


def show(report: ProbeReport, quiet: bool = False) -> None:
    """Tables on stdout unless ``quiet``; warnings with their hints on stderr."""
    if not quiet:
        _print(f"{report['method']} on {report['model']}: {report['memory']['parameters'] / 1e6:.1f} M parameters")
        for task in report["tasks"]:
            console.out.print(_table(task))
            _print("\n".join(f"  {line}" for line in _lines(task)))
        console.out.print("\n".join(_foot(report)), markup=False)
    for warning in report["warnings"]:
        text = f"warning: {warning['task']}: {warning['message']}\nhint: {warning['hint']}"
        console.err.print(text, soft_wrap=True, markup=False)


def _print(text: str) -> None:
    console.out.print(text, soft_wrap=True, markup=False)


def _table(task: TaskProbe) -> Table:
    table = Table(title=f"\n{task['task']}", box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left")
    table.add_column(f"{task['rows']} train rows", no_wrap=True, min_width=26)
    for head in ("value", "95 % interval", "n"):
        table.add_column(head, justify="right", no_wrap=True)
    for label, side in _SIDES:
        summary = task[side]
        table.add_row(label, *_cells(summary["accuracy"], summary["interval"]), str(summary["n"]))
    if gain := task["gain"]:
        table.add_row("teacher - student", *_cells(gain["value"], gain["interval"], signed=True), str(gain["n"]))
    if kl := task["kl"]:
        rows = (
            ("KL(teacher || student)", kl["forward"]),
            ("KL(student || teacher)", kl["reverse"]),
            (f"KL(t || s) after {kl['skip_first']} tokens", kl["forward_after_skip"]),
        )
        for label, estimate in rows:
            if estimate:
                table.add_row(label, *_cells(estimate["value"], estimate["interval"]), str(kl["completions"]))
    return table


def _cells(value: float | None, interval: Sequence[float] | None, signed: bool = False) -> tuple[str, str]:
    ends = (interval[0], interval[1]) if interval else None
    return console.number(value, signed), console.span(ends, signed)


def _lines(task: TaskProbe) -> Iterator[str]:
    """Unscored rows, prompts and time, one line each."""
    prompts = task["prompts"]
    unscored = {"student": task["student"]["unscored"], "teacher": task["teacher"]["unscored"]}
    if any(unscored.values()):
        yield "not scored: " + ", ".join(f"{n} rows of the {who}" for who, n in unscored.items() if n)
    for who, lengths in (("student", prompts["student"]), ("teacher", prompts["teacher"])):
        if lengths:
            yield f"{who}'s prompt: median {lengths['p50']}, 95 % {lengths['p95']}, longest {lengths['max']} tokens"
    yield f"{prompts['too_long']} of {prompts['rows']} prompts too long; up to {task['max_new_tokens']} new tokens"
    for reason, n in task["dropped"].items():
        yield f"left out: {n} x {reason} (training needs --on-bad-row drop)"
    for phase in task["training"]["phases"]:
        yield f"{phase['steps']} steps{_pace(phase)}"


def _pace(phase: Pace) -> str:
    if phase["seconds"] is None:
        return ", each too large for this machine's memory"
    once = f" + {console.clock(phase['once_seconds'])} to sample once" if phase["once_seconds"] else ""
    step = f" x {phase['step_seconds']:.2f} s ({phase['rollout_seconds']:.2f} s of it sampling)"
    return f"{step}{once}: about {console.clock(phase['seconds'])}"


def _foot(report: ProbeReport) -> list[str]:
    memory = report["memory"]
    seconds = "unknown" if report["seconds"] is None else f"about {console.clock(report['seconds'])}"
    held = {"gpu": "on the GPU", "process": "by the whole process"}[memory["peak_of"]]
    if memory["peak_of"] == "process" and (before := memory["before_bytes"]):
        held += f", {before / GIB:.2f} GiB of it before the model was loaded"
    return [
        f"\ntraining: {report['steps']} steps, {seconds} on this machine, without evaluations and checkpoints",
        memory_text(memory),
        f"        measured in this probe: {memory['peak_bytes'] / GIB:.2f} GiB {held}",
        f"teacher: the same weights with view {report['teacher_view']!r}; greedy unless it says temperature 1",
        "KL: nats per token, over the student's completions at temperature 1",
        *(f"note: {task['task']}: {task['note']}" for task in report["tasks"] if task["note"]),
    ]
