"""What a guard's rule returns, and what several rules say in the same words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sdft_cli.models.views import VIEWS
from sdft_cli.training.guard_figures import Figure, Figures


@dataclass(frozen=True)
class Alarm:
    """A limit is passed. One that is not ``fatal`` only warns, however long it lasts. A ``hint`` stands in for the
    guard's usual one, with ``{table}`` before the phase's keys."""

    text: str
    fatal: bool = True
    hint: str = ""


Rule = Callable[[Figures, float], Alarm | None]
#: Guard -> its rule, the figure it needs, and the sources of completions for which it means something.
Rules = dict[str, tuple[Rule, Figure, tuple[str, ...]]]
SAMPLED, ALL = ("student", "teacher"), ("student", "teacher", "dataset", "corpus")


def share(value: float) -> str:
    """``12 %``."""
    return f"{100 * value:.0f} %"


def lengths(f: Figures) -> str:
    """How long completions are, and were at the start; of the demonstrations as well, where they are known."""
    return lengths_since(f, f.most("completion_tokens"))


def lengths_since(f: Figures, start: float) -> str:
    """The same, where they had ``start`` tokens at the start."""
    text = f"completions have {f.now('completion_tokens'):.1f} tokens, {start:.1f} at the start"
    return text + (f" and {f.demonstrations['completion_tokens']:.1f} in demonstrations" if f.demonstrations else "")


def far_longer(f: Figures) -> bool:
    """Whether completions are more than twice as long as demonstrations."""
    known = f.has("completion_tokens") and "completion_tokens" in f.demonstrations
    return known and f.now("completion_tokens") > 2 * f.demonstrations["completion_tokens"]


def ways_to_end(f: Figures) -> str:
    """What to change where the student does not end and demonstrations do."""
    ways = ["set {table}objective.skip_first=0"] if f.recipe.objective.skipped_tokens else []
    view = VIEWS.get(f.recipe.views.teacher or "")
    if view is not None and view.asks_to_think:
        ways.append("set {table}views.teacher=demonstration-plain, which does not ask for the thinking process")
    return ", or ".join(ways) or "train for more steps, or raise {table}train.lr"
