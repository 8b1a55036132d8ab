"""What a person sees in the terminal: results as tables (stdout), training as progress (stderr).

Tables read without colour; those of a report are in `screen`. Everything about progress goes to stderr, so that
``--json`` owns stdout; on a terminal it is live, elsewhere plain lines about every tenth of a stage.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # for annotations only: this file needs no numpy
    from rich.live import Live
    from rich.progress import Progress

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


# --- numbers -------------------------------------------------------------------------------------------------


def number(value: float | None, signed: bool = False, digits: int = 3) -> str:
    """``0.917`` (``+0.017`` if signed), or ``-`` for None."""
    if value is None:
        return "-"
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text[1:] if float(text) == 0 and text[0] in "+-" else text


def span(interval: tuple[float, float] | None, signed: bool = False) -> str:
    """``[0.881, 0.940]``, or nothing for None."""
    return f"[{number(interval[0], signed)}, {number(interval[1], signed)}]" if interval else ""


def pvalue(p: float | None) -> str:
    """``0.031``, ``<0.001``, or ``-`` for None."""
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def is_change(metric: str) -> bool:
    """Whether a metric is a difference, shown with its sign (the others are accuracies)."""
    return not metric.endswith("accuracy")


# --- tables --------------------------------------------------------------------------------------------------


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, names: int = 0) -> Table:
    """Text cells under heads of up to two lines, right-aligned but for the first ``names`` columns; columns stand
    closer where ``width`` is short."""
    widths = [max(map(len, [*head.split("\n"), *cells])) for head, *cells in zip(heads, *rows, strict=True)]
    loose = sum(widths) + 2 * len(widths) <= (width or out.width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, int(loose), 0, 0), pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if number < names else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


# --- training ------------------------------------------------------------------------------------------------

#: (label, key of a step row, format), in the order of the line.
_FIELDS = (
    ("loss", "loss", ".4f"),
    ("KL", "kl", ".4f"),
    ("entropy", "entropy", ".3f"),
    ("length", "completion_tokens", ".1f"),
    ("tokens/s", "tokens_per_second", ",.0f"),
)


def step_line(row: dict[str, Any]) -> str:
    """``loss 0.1234  KL 0.0200  ...`` of a step row; what a method does not have is left out."""
    shown = [(label, row.get(key), form) for label, key, form in _FIELDS]
    return "  ".join(f"{label} {value:{form}}" for label, value, form in shown if value is not None)


def clock(seconds: float) -> str:
    """``0:42``, ``12:03`` or ``1:05:09``."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


class TrainingDisplay:
    """Progress of a training run on stderr: live on a terminal, plain lines elsewhere, nothing if ``quiet``."""

    def __init__(self, quiet: bool = False, console: Console | None = None):
        self.console = console or err
        self.quiet = quiet
        self.live: Live | None = None
        self.bar: Progress | None = None
        self.stage = (0, 0, "", 1)
        self.begun: tuple[int, float] | None = None
        self.printed = 0

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_stage(self, stage: int, n_stages: int, task: str, steps: int) -> None:
        """A stage of ``steps`` steps begins (or is resumed: its first row may be of any step)."""
        self.close()
        self.stage, self.begun, self.printed = (stage, n_stages, task, max(1, steps)), None, 0
        if self.quiet:
            return
        if self.console.is_terminal:
            self._start_live()
        else:
            self.note(f"{self._where()}  {steps} steps")

    def step(self, row: dict[str, Any]) -> None:
        """Show one step row."""
        now, step = time.monotonic(), int(row["step"])
        self.begun = self.begun or (step, now)
        if self.quiet:
            return
        if self.live and self.bar:
            self.bar.update(self.bar.task_ids[0], completed=step, left=self._left(step, now))
            self.live.update(Group(self.bar, Text("  " + step_line(row), overflow="ellipsis", no_wrap=True)))
            if step >= self.stage[3]:
                self.close()
        elif self._due(step):
            self.printed = step
            self.note(f"{self._where()}  step {step}/{self.stage[3]}  {step_line(row)}  left {self._left(step, now)}")

    def eval(self, row: dict[str, Any]) -> None:
        """Show one probe row: quick accuracies on a few items."""
        scores = {**row.get("scores", {}), **({"prior": row["suite"]} if row.get("suite") else {})}
        cells = [f"{name} {number(s['accuracy'])} (n {s['n']})" for name, s in scores.items() if s.get("n")]
        self.note(f"  probe at step {row['step']}  " + "  ".join(cells))

    def guard(self, row: dict[str, Any]) -> None:
        """Show one guard row, if it is a warning; a stop ends the run with an error that says the same."""
        if row["level"] == "warn":
            self.note(f"warning: {row['guard']} at step {row['step']}: {row['text']} ({row['hint']})")

    def ending(self, row: dict[str, Any]) -> None:
        """Show how a stage ended, unless with its last step and no better one before it."""
        top, last = row["best"], row["last"]
        if row["why"] == "prior dropped":
            where = f"step {row['model_of']}" if row["model_of"] else "the model it began with"
            self.note(f"stage stopped at step {row['step']}: prior {number(last['prior'])}; it ends with {where}")
        elif row["why"] == "best validation":
            self.note(f"stage ends with step {row['model_of']}, the best on validation: {number(top['validation'])}")
        elif top and top["validation"] > last["validation"]:
            told = f"step {top['step']} had {number(top['validation'])}, the last {number(last['validation'])}"
            self.note(f"best validation: {told} (--set best=use ends a stage with its best step)")

    def note(self, text: str) -> None:
        """One line of plain text, above the live display while there is one."""
        if not self.quiet:
            self.console.print(Text(text), soft_wrap=not self.live)

    def close(self) -> None:
        """Stop the live display and leave its last state; may be called twice."""
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
        self.bar.add_task(self._where(), total=self.stage[3], left="-:--")
        self.live = Live(self.bar, console=self.console, refresh_per_second=4)
        self.live.start()

    def _where(self) -> str:
        return f"stage {self.stage[0]}/{self.stage[1]} {self.stage[2]}"

    def _left(self, step: int, now: float) -> str:
        """Time left in this stage, from the pace since its first row."""
        first, since = self.begun or (step, now)
        return clock((self.stage[3] - step) * (now - since) / (step - first)) if step > first else "-:--"

    def _due(self, step: int) -> bool:
        """Whether a plain line is due: the first row, the last, and one a tenth of the stage, or 50 steps if less."""
        every = max(1, min(50, self.stage[3] // 10))
        return not self.printed or step >= self.stage[3] or step // every > self.printed // every
