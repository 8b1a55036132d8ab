"""A probe in the terminal: the verdict, the recipe, then tables per task, what training would need, and warnings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Literal

from rich import box
from rich.table import Table

from sdft_cli import console
from sdft_cli.config.recipe_text import number_text, value_text
from sdft_cli.training.cost_estimates import GIB, memory_text
from sdft_cli.training.plan_text import plan_lines, table_lines
from sdft_cli.training.probe_record import (
    Pace,
    ProbeMemory,
    ProbeReport,
    Recommendation,
    TaskProbe,
    TrainingTime,
    WrittenLengths,
)

#: Columns of wrapped text.
WIDTH = 80
#: The share of the processor time it could use that a program gets on a quiet machine, as well as timers can tell.
QUIET = 0.8

_SIDES: tuple[tuple[str, Literal["student", "student_sampled", "teacher"]], ...] = (
    ("student", "student"),
    ("student, temperature 1", "student_sampled"),
    ("teacher", "teacher"),
)


def show(report: ProbeReport, quiet: bool = False) -> None:
    """All of it on stdout unless ``quiet``; warnings with their hints on stderr."""
    if not quiet:
        parameters = report["memory"]["parameters"] / 1e6
        _print(f"{report['method']} on {report['model']}: {parameters:.1f} M parameters")
        _print("\n".join(_verdicts(report)))
        _print("\n".join(_recipe(report["recipe"])))
        for task in report["tasks"]:
            console.out.print(_table(task))
            if len(task["views"]) > 1:
                console.out.print(_views(task))
            _print("\n".join(part for line in _lines(task) for part in _wrapped(line, "  ", "    ")))
        console.out.print("\n".join(_foot(report)), markup=False)
    for warning in report["warnings"]:
        text = f"warning: {warning['task']}: {warning['message']}\nhint: {warning['hint']}"
        console.err.print(text, soft_wrap=True, markup=False)


def _print(text: str) -> None:
    console.out.print(text, soft_wrap=True, markup=False)


# --- verdict and recipe ----------------------------------------------------------------------------------------------


def _verdicts(report: ProbeReport) -> Iterator[str]:
    for verdict in report["verdicts"]:
        yield ""
        yield from _wrapped(f"{verdict['task']}: {verdict['sentence']}", "", "  ")
        yield from _wrapped(f"to do: {verdict['todo']}", "  ", "    ")


def _recipe(recipe: Recommendation | None) -> Iterator[str]:
    """The settings that have a reason; the file has the others too."""
    yield ""
    if recipe is None:
        yield "no recipe: there is nothing to train"
        return
    yield "recipe (--write-recipe FILE saves it):"
    for setting in recipe["settings"]:
        if setting["reason"]:
            yield f"  {setting['key']} = {value_text(setting['value'])}"
            yield from _wrapped(setting["reason"], "      ", "      ")
    yield f"  rates to try: sdft sweep FILE --grid lr={','.join(map(number_text, recipe['grid']['train.lr']))}"
    for note in recipe["notes"]:
        yield from _wrapped(f"note: {note}", "  ", "    ")


def _wrapped(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )


# --- tables ----------------------------------------------------------------------------------------------------------


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


def _views(task: TaskProbe) -> Table:
    rows = []
    for view in task["views"]:
        clean = view["clean"]["value"] if view["clean"] else None
        teacher, ended, leaked = view["teacher"], view["lengths"]["ended"], view["leakage"]["share"]
        shares = (teacher["accuracy"], teacher.get("exact"), ended, leaked, clean)
        kl = view["kl"]["forward"]["value"] if view["kl"] else None
        cells = [console.number(share, digits=2) for share in (*shares, kl, view["first"].get("3"))]
        rows.append([view["view"], *cells, str(view["rows"])])
    heads = ("teacher's view", "right", "exact", "ended", "leaks", "clean", "KL", "in first 3", "rows")
    return console.plain_table(heads, rows, WIDTH, names=1)


# --- lines -----------------------------------------------------------------------------------------------------------


def _lines(task: TaskProbe) -> Iterator[str]:
    """What the tables do not hold, one line each."""
    prompts = task["prompts"]
    unscored = {"student": task["student"]["unscored"], "teacher": task["teacher"]["unscored"]}
    if any(unscored.values()):
        yield "not scored: " + ", ".join(f"{n} rows of the {who}" for who, n in unscored.items() if n)
    yield from _about_divergence(task)
    yield from _about_lengths(task)
    for who, lengths in (("student", prompts["student"]), ("teacher", prompts["teacher"])):
        if lengths:
            yield f"{who}'s prompt: median {lengths['p50']}, 95 % {lengths['p95']}, longest {lengths['max']} tokens"
    yield f"{prompts['too_long']} of {prompts['rows']} prompts too long; up to {task['max_new_tokens']} new tokens"
    for reason, n in task["dropped"].items():
        yield f"left out: {n} x {reason} (training needs --on-bad-row drop)"
    for phase in task["training"]["phases"]:
        yield f"{phase['steps']} steps{_pace(phase)}"
    for method, training in task["other_training"].items():
        yield f"{method}: {_one_phase(training)}"


def _about_divergence(task: TaskProbe) -> Iterator[str]:
    own, takeover, surprise = task["views"][0], task["takeover"], task["surprise"]
    if own["first"]:
        shares = ", ".join(f"{100 * share:.0f} %" for share in own["first"].values())
        left_out = f"; the loss leaves out {100 * own['masked']:.0f} %" if own["masked"] else ""
        yield f"KL(t || s) in the first {', '.join(own['first'])} tokens: {shares}{left_out}"
    if takeover:
        points = takeover["points"]
        rates = ", ".join(console.number(point["accuracy"], digits=2) for point in points)
        after = ", ".join(str(point["tokens"]) for point in points)
        yield f"teacher ({takeover['view']}) takes over after {after} tokens of the student's: {rates} right"
    for view in task["views"]:
        if sampled := view["sampled"]:
            at = ", ".join(f"{point['temperature']:g}" for point in sampled["points"])
            right = ", ".join(console.number(point["accuracy"], digits=2) for point in sampled["points"])
            clean = ", ".join(console.number(point["clean"], digits=2) for point in sampled["points"])
            shares = f"{right} right, {clean} clean; greedily {console.number(sampled['greedy'], digits=2)} right"
            yield f"teacher ({view['view']}) sampled at temperature {at}: {shares}"
    if (shown := surprise["demonstrations"]) and (own_loss := surprise["own"]):
        yield (
            f"student's loss: {shown['value']:.2f} nats a token on demonstrations, {own_loss['value']:.2f} on its own "
            "words"
        )


def _about_lengths(task: TaskProbe) -> Iterator[str]:
    lengths = task["lengths"]
    sides = (("student", lengths["student"]), ("teacher", task["views"][0]["lengths"]))
    texts = [_length(who, each) for who, each in (*sides, ("demonstration", lengths["demonstrations"]))]
    if found := [text for text in texts if text]:
        yield f"median tokens: {'; '.join(found)}"


def _length(who: str, lengths: WrittenLengths) -> str:
    if not lengths["tokens"]:
        return ""
    ended = "" if lengths["ended"] is None else f" ({100 * lengths['ended']:.0f} % ended)"
    return f"{who} {lengths['tokens']['p50']}{ended}"


def _pace(phase: Pace) -> str:
    if phase["seconds"] is None:
        return ", each too large for this machine's memory"
    once = f" + {console.clock(phase['once_seconds'])} to sample once" if phase["once_seconds"] else ""
    step = f" x {phase['step_seconds']:.2f} s ({phase['rollout_seconds']:.2f} s of it sampling)"
    return f"{step}{once}: about {console.clock(phase['seconds'])}"


def _one_phase(training: TrainingTime) -> str:
    return "; ".join(f"{phase['steps']} steps{_pace(phase)}" for phase in training["phases"])


def _foot(report: ProbeReport) -> list[str]:
    memory = report["memory"]
    seconds = "unknown" if report["seconds"] is None else f"about {console.clock(report['seconds'])}"
    others = ", ".join(f"{peak / GIB:.2f} GiB with {name}" for name, peak in report["other_peaks"].items())
    return [
        f"\ntraining: {report['steps']} steps, {seconds} on this machine, without evaluations and checkpoints",
        *_busy(report),
        memory_text(memory),
        *([f"        predicted peak of other methods: {others}"] if others else []),
        f"        measured in this probe: {memory['peak_bytes'] / GIB:.2f} GiB {_held(memory)}",
        *_elsewhere(report),
        f"this probe took {console.clock(report['probe_seconds'])}",
        f"teacher: the same weights with view {report['teacher_view']!r}; greedy unless it says temperature 1",
        "KL: nats per token, over the student's completions at temperature 1",
        *(["clean: right, ended by itself, and without words of the view"] if not report["quick"] else []),
        *_task_notes(report),
    ]


def _elsewhere(report: ProbeReport) -> list[str]:
    """What fits on hardware that was asked about."""
    if "plan" not in report or "what_fits" not in report:
        return []
    return [*plan_lines(report["plan"]), "", *table_lines(report["what_fits"]), ""]


def _busy(report: ProbeReport) -> list[str]:
    """A line where other programs held up the steps that were timed."""
    trainings = [each for task in report["tasks"] for each in (task["training"], *task["other_training"].values())]
    shares = [phase["machine_share"] for training in trainings for phase in training["phases"]]
    known = [share for share in shares if share is not None]
    if not known or (share := fmean(known)) >= QUIET:
        return []
    return [
        f"the machine was busy: the timed steps got {100 * share:.0f} % of the processor time that they could use; "
        "the times above are those of a machine that does nothing else"
    ]


def _held(memory: ProbeMemory) -> str:
    """What the measured peak is of."""
    if memory["peak_of"] == "gpu":
        return "allocated on the GPU, without what torch reserves beyond that, and without the CUDA context"
    before = memory["before_bytes"]
    libraries = f", {before / GIB:.2f} of it by Python and its libraries before the model was loaded" if before else ""
    return f"by the whole process{libraries}; it includes what the probe itself sampled and scored"


def _task_notes(report: ProbeReport) -> list[str]:
    """The notes of tasks, each once."""
    tasks: dict[str, list[str]] = {}
    for task in report["tasks"]:
        tasks.setdefault(task["note"], []).append(task["task"])
    return [f"note: {', '.join(names)}: {note}" for note, names in tasks.items() if note]
