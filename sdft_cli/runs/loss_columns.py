"""One task's loss of given texts after every stage: a column beside the accuracy matrix, and never part of it."""

from __future__ import annotations

from collections.abc import Mapping

from sdft_cli.runs.records import Scores
from sdft_cli.runs.token_records import TokenLoss

#: By stage; None where it was not measured.
LossColumn = list[TokenLoss | None]


def loss_columns(scores: Mapping[int, Scores], tasks: list[str]) -> dict[str, LossColumn]:
    """The columns of the ``tasks`` whose loss was measured at some stage, from the scores of every evaluated stage."""
    columns = {task: [_loss(scores.get(k), task) for k in range(max(scores) + 1)] for task in tasks}
    return {task: column for task, column in columns.items() if any(column)}


def changed(column: LossColumn) -> bool:
    """Whether stages measured other texts, so that their losses say nothing of the model."""
    return len({(c["split"], c["of"], c["rows"], c["tokens"]) for c in column if c}) > 1


def text_of(loss: TokenLoss) -> str:
    """What a loss is of, as in ``demonstrations of 40 validation rows``."""
    what = "gold answers" if loss["of"] == "answers" else loss["of"]
    rows = "row" if loss["rows"] == 1 else "rows"
    left_out = f"; {loss['left_out']} more have none, or do not fit" if loss["left_out"] else ""
    return f"{what} of {loss['rows']} {loss['split']} {rows}{left_out}"


def _loss(scores: Scores | None, task: str) -> TokenLoss | None:
    summary = scores["tasks"].get(task) if scores else None
    return summary.get("loss") if summary else None
