"""Which checkpoints of a stage stay on disk, and with which one the stage ends. Pure: measurements in, steps out.

The best mark is the one with the highest validation accuracy. Where no mark of the stage has an accuracy, because
nothing scores its task, it is the one with the lowest validation loss.

A mid-training evaluation leaves a mark. A mark is worth a copy of the model where it is the best so far on validation
(arXiv 2601.19897, appendix B.1, reports that checkpoint), or where the prior suite still holds and the run is to go
back to such a step. Marks of a stage's earlier phases are left out: they are not what the stage is for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sdft_cli.runs.records import MarkRecord


@dataclass(frozen=True)
class Mark:
    """What was measured at a step: accuracy and loss on the stage's own validation rows, accuracy on the prior suite;
    None: not measured. ``n`` are the rows behind ``validation``, where that is known."""

    step: int
    validation: float | None = None
    prior: float | None = None
    loss: float | None = None
    n: int | None = None

    def record(self) -> MarkRecord:
        record: MarkRecord = {"step": self.step, "validation": self.validation, "prior": self.prior}
        if self.n is not None:
            record["n"] = self.n
        return record if self.loss is None else {**record, "loss": self.loss}


@dataclass(frozen=True)
class Rule:
    """Keep this many of the ``newest`` checkpoints to resume from, and the ``best`` model or not. An accuracy of the
    prior suite below ``floor`` counts as lost."""

    newest: int = 1
    best: bool = True
    floor: float | None = None

    def holds(self, mark: Mark) -> bool:
        """Whether the prior suite is at or above the floor; always true without one."""
        return self.floor is None or (mark.prior is not None and mark.prior >= self.floor)

    def worth(self, mark: Mark, earlier: Sequence[Mark]) -> bool:
        """Whether to keep the model at ``mark`` for now, given the stage's earlier marks."""
        if not self.holds(mark):
            return False
        return self.floor is not None or (self.best and best([*earlier, mark]) == mark)

    def kept(self, marks: Sequence[Mark]) -> set[int]:
        """Steps of the models to keep besides the newest checkpoints: the best, and the last that held the floor."""
        held = [m for m in marks if self.holds(m)]
        top = best(held) if self.best else None
        last = held[-1] if held and self.floor is not None else None
        return {m.step for m in (top, last) if m}

    def resumable(self, steps: Collection[int]) -> set[int]:
        """Of the ``steps`` that have a full checkpoint, those that keep their state. Steps are numbers, not names."""
        return set(sorted(steps)[-self.newest :])

    def ending(self, marks: Sequence[Mark], use_best: bool) -> Mark | None:
        """The mark to end the stage with: the best or the last of those that held. None: none did."""
        held = [m for m in marks if self.holds(m)]
        return (best(held) if use_best else None) or (held[-1] if held else None)


def best(marks: Sequence[Mark]) -> Mark | None:
    """The mark with the highest validation accuracy, or with the lowest loss where none has an accuracy; of equals the
    earliest, which has moved the model least."""
    if scored := [m for m in marks if m.validation is not None]:
        return max(scored, key=lambda m: (m.validation, -m.step))
    measured = [m for m in marks if m.loss is not None]
    return min(measured, key=lambda m: (m.loss, m.step)) if measured else None


def better(one: Mark, other: Mark) -> bool:
    """Whether ``one`` has the higher accuracy or, where neither has any, the lower loss; false where one lacks what the
    other has."""
    if one.validation is not None and other.validation is not None:
        return one.validation > other.validation
    unscored = one.validation is None and other.validation is None
    return unscored and one.loss is not None and other.loss is not None and one.loss < other.loss
