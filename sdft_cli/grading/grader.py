"""What a grader is: a rule by its name, and what it reads of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from sdft_cli.grading.thinking import strip_reasoning
from sdft_cli.types import Example, Json, Score

#: (completion, gold answer) -> score
Grade = Callable[[str, str], Score]
#: (completion, row, the dataset's folder if there is one) -> score
ScoreRow = Callable[[str, Example, Path | None], Score]


def needs_row(completion: str, gold: str) -> Score:
    """The ``grade`` of a rule that cannot be applied to a gold answer alone."""
    return Score(None, None, "unscored: this rule needs the whole row, not only its gold answer")


@dataclass(frozen=True)
class Grader:
    """A rule by its name: ``grade`` reads a completion and compares it with one gold answer in words.

    A rule that needs more of the row than its gold answer has ``score_row`` instead: ``columns`` are the further
    columns of a user's file that it reads (a database, unit tests, …), which the row keeps in ``meta`` under these
    names; ``files`` are those of them whose values may name a file, kept in the dataset's folder. ``given`` is what the
    columns file states once for all rows; a row's own ``meta`` comes first. With ``gold`` "json", a gold answer that is
    an object or a list is kept as it is; with "text", a list holds several answers of which any is right.

    ``suits`` tells whether a gold answer is of the kind the rule is meant for, ``suits_rows`` the same of all rows of a
    dataset; where a dataset names no grader, the first one in `GRADERS` that suits it is chosen. ``compiled`` makes the
    rule from a pattern, for a grader that needs one. ``graded``: values between 0 and 1 are usual, not only 0 and 1.
    ``render``: a gold answer as a completion that should be right, where it is not its own text. ``ready`` raises
    `UsageError` where this machine cannot grade by the rule.
    ``recurring``: it suits only answers that are classes, each that of many rows.
    """

    name: str
    summary: str
    flaws: str
    grade: Grade = needs_row
    suits: Callable[[str], bool] = lambda gold: False
    compiled: Callable[[str], Grade] | None = None
    score_row: ScoreRow | None = None
    suits_rows: Callable[[Sequence[Example]], bool] | None = None
    columns: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    gold: Literal["text", "json"] = "text"
    graded: bool = False
    recurring: bool = False
    render: Callable[[Json], str] | None = None
    ready: Callable[[], None] | None = None
    given: Mapping[str, Json] = field(default_factory=dict)

    def score(self, completion: str, row: Example, folder: Path | None = None) -> Score:
        """The completion's score on a row of the dataset in ``folder`` (None: it has not been written yet)."""
        if self.score_row is None:
            return self(completion, row.answer)
        if self.given:
            row = replace(row, meta={**self.given, **row.meta})
        return self.score_row(completion, row, folder)

    def __call__(self, completion: str, gold: Json) -> Score:
        """The best score over the gold answers that are text, of which there may be a list; their thinking is no part
        of them."""
        golds = gold if isinstance(gold, list) else [gold]
        texts = [text for each in golds if isinstance(each, str) and (text := strip_reasoning(each)).strip()]
        if not texts:
            return Score(None, None, "unscored: the row has no gold answer in words")
        scores = [self.grade(completion, text) for text in texts]
        return max(scores, key=lambda score: -1.0 if score.value is None else score.value)
