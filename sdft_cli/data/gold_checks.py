"""Can a row be won at all? Its gold answer and its demonstration, graded like completions.

A gold answer is graded by itself, in the form that a completion has (`Task.render`, else its bare text), and inside the
row's demonstration; a demonstration that is nothing but the gold answer counts once. A bare answer need not be right: a
rule may read an answer in a form that only demonstrations show, such as ``ANSWER: 42``. So a loss by the bare answer
counts only where the bare form is known to be read: the task renders it, a shipped rule grades it, or most rows win
with it. Elsewhere the answer is put in the place of another one, in a demonstration that wins.

A row that cannot be won counts against every model alike: the grader misreads its gold answer, or the row is wrong.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdft_cli.errors import UsageError
from sdft_cli.grading.named_rules import GRADERS, JUDGE
from sdft_cli.grading.tool_calls import TOOL_CALLS
from sdft_cli.models.views import message_text
from sdft_cli.types import Example, Score, Task

#: Why a row cannot be won.
GOLD, DEMONSTRATION = "its gold answer gets no credit", "its demonstration gets no credit"
UNSCORED = "its gold answer cannot be scored"
#: The preflight of training stops after this many seconds, once it has graded this many rows: some graders run code.
SECONDS, FEW = 3.0, 8
#: So many demonstrations are tried as the form of an answer.
CANDIDATES = 20
#: The length of what a grader says of a row, where it is quoted.
DETAIL = 160


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the grader says of one row's gold.

    ``reason``: why the row cannot be won, and ``detail`` the grader's words; "" if it can be won. ``needs_judge``: no
    rule scores it. ``proven`` is False where nothing is known: no completion is known that the rule should accept.
    ``paraphrased``: the demonstration gets no credit from a rule that only stands in for a judge.
    """

    example: Example
    reason: str = ""
    detail: str = ""
    needs_judge: bool = False
    proven: bool = True
    paraphrased: bool = False


@dataclass(frozen=True, slots=True)
class _Graded:
    """A row with the scores of its gold answer by itself and of its demonstration; None: there is none."""

    example: Example
    bare: Score | None
    shown: Score | None

    @property
    def wins(self) -> bool:
        return _credit(self.bare) or _credit(self.shown)

    @property
    def scored(self) -> bool:
        return any(score is not None and score.value is not None for score in (self.bare, self.shown))


class GoldChecks:
    """Grades the gold of a task's rows; `form` is how a gold answer is written so that the task's rule reads it."""

    def __init__(self, task: Task, rows: Sequence[Example], seconds: float | None = None):
        """Grade ``rows``, or as many of them as ``seconds`` allow, at least `FEW`."""
        self.task, self.graded = task, list[_Graded]()
        began = time.monotonic()
        for example in rows:
            if seconds is not None and len(self.graded) >= FEW and time.monotonic() - began > seconds:
                break
            if answers(task, example) or demonstrated(task, example):
                graded = _graded(task, example)
                if example.answer is not None or graded.scored:  # a demonstration alone may be nothing to grade by
                    self.graded.append(graded)
        self.bare_is_read = self._bare_is_read()
        self.form: Callable[[str], str] = str if self.bare_is_read else self._form_of_a_demonstration() or str

    def outcomes(self) -> list[Outcome]:
        """One for every row that was graded."""
        return [self._outcome(row) for row in self.graded]

    def _outcome(self, row: _Graded) -> Outcome:
        example, bare, shown = row.example, row.bare, row.shown
        if shown and not _credit(shown) and _credit(bare):
            if approximate(self.task):
                return Outcome(example, paraphrased=True)
            return Outcome(example, DEMONSTRATION, _told(shown))
        if row.wins:
            return Outcome(example)
        scores = [score for score in (shown, bare) if score]
        if not row.scored:
            if needs_judge(self.task):
                return Outcome(example, needs_judge=True)
            return Outcome(example, UNSCORED, _told(scores[-1]))
        if not self.bare_is_read and self.form is not str:
            again = [self.task.grade(self.form(text), example) for text in answers(self.task, example)]
            if any(map(_credit, again)):
                return Outcome(example, DEMONSTRATION, _told(shown)) if shown else Outcome(example)
            return Outcome(example, GOLD, _told(again[-1] if again else scores[-1]))
        if not self.bare_is_read and shown is None:
            return Outcome(example, proven=False)
        return Outcome(example, GOLD, _told(scores[-1]))

    def _bare_is_read(self) -> bool:
        """Whether the rule reads a gold answer that stands alone."""
        if self.task.render or (self.task.grader and "pattern" not in self.task.grader):
            return True
        scored = [row for row in self.graded if row.bare and row.bare.value is not None]
        return 2 * sum(_credit(row.bare) for row in scored) >= len(scored) > 0

    def _form_of_a_demonstration(self) -> Callable[[str], str] | None:
        """A demonstration that wins and holds its gold answer once, with another answer in that place; most rows must
        win in this form."""
        winners = [row for row in self.graded if _credit(row.shown) and not _credit(row.bare)]
        for row in winners[:CANDIDATES]:
            text = demonstrated(self.task, row.example)
            for held in answers(self.task, row.example):
                form = _in_place_of(held, text) if text.count(held) == 1 else None
                if form and 2 * sum(self._wins_in(form, other.example) for other in winners[:FEW]) > len(winners[:FEW]):
                    return form
        return None

    def _wins_in(self, form: Callable[[str], str], example: Example) -> bool:
        return any(_credit(self.task.grade(form(text), example)) for text in answers(self.task, example))


def check_gold(task: Task, rows: Sequence[Example], where: str) -> list[str]:
    """What to say, before training, of rows that cannot be won. Raises `UsageError` where no row can."""
    checks = GoldChecks(task, rows, SECONDS)
    outcomes = [o for o in checks.outcomes() if o.proven and not o.needs_judge and o.reason != UNSCORED]
    lost = [o for o in outcomes if o.reason == GOLD]
    refuse_if_hopeless(task, outcomes, where)
    if not lost:
        return []
    count = f"{len(lost)} of {len(outcomes)} rows cannot be won"
    return [f"{where}: {count}: the grader gives their gold no credit, such as {lost[0].example.id}"]


def refuse_if_hopeless(task: Task, outcomes: Sequence[Outcome], where: str) -> None:
    """Raise `UsageError` if there are several rows and the grader gives credit to the gold of none: it is wrong."""
    lost = [o for o in outcomes if o.reason in (GOLD, UNSCORED)]
    if len(lost) == len(outcomes) > 1:
        raise UsageError(
            f"{where}: the grader of {task.name} gives no credit to the gold of any of {len(lost)} rows "
            f"({place(lost[0].example)}{': ' * bool(lost[0].detail)}{lost[0].detail})",
            "check the task's grader and the rows' answers: nothing could be measured or rewarded",
        )


def needs_judge(task: Task) -> bool:
    """Whether a gold answer that the task's rule does not score is meant for a judge, or for nobody."""
    if task.grader is not None:
        return task.grader["name"] in (JUDGE, "none")
    return task.rubric is not None


def approximate(task: Task) -> bool:
    """Whether the rule only stands in for a judge, so that it may well miss a right demonstration in other words."""
    return task.rubric is not None and task.grader is None


def answers(task: Task, example: Example) -> list[str]:
    """The row's gold answers as completions, rendered if the task can. Of a list of texts each one is an answer; for a
    rule that compares JSON they are one, as JSON or line by line."""
    gold = example.answer
    if gold is None:
        return []
    if task.render:
        return [task.render(gold)]
    if isinstance(gold, list) and gold and all(isinstance(one, str) for one in gold):
        return [json.dumps(gold, ensure_ascii=False), "\n".join(gold)] if _compares_json(task) else gold
    return [gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False)]


def _compares_json(task: Task) -> bool:
    rule = GRADERS.get(task.grader["name"]) if task.grader else None
    return rule is not None and rule.gold == "json"


def demonstrated(task: Task, example: Example) -> str:
    """The demonstration; of several turns the last one, or the first for a rule that compares tool calls."""
    shown = example.demonstration
    if not isinstance(shown, list):
        return shown or ""
    calls = task.grader is not None and task.grader["name"] == TOOL_CALLS.name
    return message_text(shown[0 if calls else -1]) if shown else ""


def place(example: Example) -> str:
    """Where the row comes from: file and line, if they are known, and its id."""
    row = example.meta.get("row")
    return f"{row} ({example.id})" if isinstance(row, str) else example.id


def _graded(task: Task, example: Example) -> _Graded:
    texts, text = answers(task, example), demonstrated(task, example)
    bare = [task.grade(answer, example) for answer in texts]
    apart = text.strip() and text.strip() not in [answer.strip() for answer in texts]
    best = max(bare, key=lambda score: -1.0 if score.value is None else score.value) if bare else None
    return _Graded(example, best, task.grade(text, example) if apart else None)


def _in_place_of(held: str, text: str) -> Callable[[str], str]:
    before, _, after = text.partition(held)
    return lambda answer: f"{before}{answer}{after}"


def _credit(score: Score | None) -> bool:
    return score is not None and bool(score.value)


def _told(score: Score | None) -> str:
    words = " ".join(score.why.split()) if score else ""
    return words if len(words) <= DETAIL else f"{words[:DETAIL]}…"
