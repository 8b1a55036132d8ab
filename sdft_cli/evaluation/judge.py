"""A model as the judge of open answers: asked for one word at temperature 0, and believed only if it says just that.

The judge is shown question, reference and response, each between fences that carry a code made of all three, so that no
text can hold the fence that would end it. Its reply is read whole: "INCORRECT" is not a kind of "CORRECT", and a
sentence is no verdict. What cannot be read is counted and never scored. Replies are stored before they are used (see
`llm.reply_store`), so an evaluation that is stopped goes on, and one that is repeated pays nothing.

What this cannot help: a judge that lets itself be talked into a wrong word. The verdict is still its own reply, not
anything that stood in the response.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdft_cli.evaluation import scoring
from sdft_cli.grading import task_rules
from sdft_cli.llm.language_model import model_id, open_model
from sdft_cli.llm.progress import ProgressDisplay
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.types import LENGTH, REFUSED, Exchange, PromptResult, Reply, Request, TeacherOptions
from sdft_cli.models import digests
from sdft_cli.types import Message, Rubric, Score, Task

Row = dict[str, Any]
#: Room for a judge that thinks before it speaks; one that does not is done after a word.
MAX_TOKENS = 2048
#: How the reason begins of an answer that the judge was asked about in vain.
UNREAD = "unscored: the judge said"
#: What may stand around the word: white space, marks of emphasis, quotes, a full stop.
_AROUND = " \t\r\n*_`'\"“”‘’.!#"


@dataclass(frozen=True)
class Judgement:
    """What is judged: a ``response`` to a ``question``, beside the ``reference`` that is right."""

    question: str
    reference: str
    response: str


@dataclass
class Verdict(PromptResult):
    """What came of one question to the judge: the word, or None and the reply that is none."""

    word: str | None = None
    reply: str = ""

    @property
    def accepted(self) -> int:
        return int(self.word is not None)


class Judge:
    """``options`` name the model and its endpoint; replies are kept below ``folder``, one file a name."""

    def __init__(self, options: TeacherOptions, folder: Path):
        self.options, self.folder = options, folder
        self.model_id = model_id(options)

    def settings(self, rubric: Rubric) -> dict[str, str]:
        """What two judged evaluations must agree in, besides all else (see `alike`)."""
        return {"judge": self.model_id["model"], "rubric": digests.of([rubric.instructions, dict(rubric.verdicts)])}

    def note(self, records: Sequence[Row]) -> str:
        """What a table of these records must say of them."""
        unread = sum(row["why"].startswith(UNREAD) for row in records)
        return f"judged by {self.model_id['model']}" + (f"; {unread} replies were no verdict" if unread else "")

    def scores(self, name: str, rubric: Rubric, answers: Sequence[Judgement]) -> list[Score]:
        """The judge's score of every answer, in order; an empty response is wrong without a question.

        Raises `SdftError` where the endpoint cannot be had; what it replied until then is kept.
        """
        asked = {a: None for a in answers if a.reference.strip() and a.response.strip()}
        verdicts = self._ask(name, rubric, list(asked))
        return [_score(answer, verdicts.get(answer), rubric) for answer in answers]

    def _ask(self, name: str, rubric: Rubric, answers: Sequence[Judgement]) -> dict[Judgement, Verdict]:
        with (
            ReplyStore(self.folder / f"{name}.sqlite") as store,
            ProgressDisplay(f"judge of {name}", len(answers)) as progress,
        ):
            model = open_model(self.options, store, progress)
            results = model.run([exchange(rubric, answer) for answer in answers], progress.finished)
        return {a: result for a, result in zip(answers, results, strict=True) if isinstance(result, Verdict)}


def judged(judge: Judge, name: str, rubric: Rubric, records: Sequence[Row]) -> list[Row]:
    """Item records with the judge's scores in place of the scorer's, whose value is kept among the ``extra`` ones.

    A record has ``prompt``, ``answer`` (the reference) and ``completion``, as `scoring` writes them.
    """
    answers = [
        Judgement(row["prompt"], _text(row["answer"]), task_rules.strip_thinking(row["completion"]).strip())
        for row in records
    ]
    scores = judge.scores(name, rubric, answers)
    return [_with(row, score) for row, score in zip(records, scores, strict=True)]


def _with(row: Row, score: Score) -> Row:
    before = {} if row["value"] is None else {"without judge": row["value"]}
    extra = {**row.get("extra", {}), **before, **score.extra}
    found = {"value": score.value, "extracted": score.extracted, "why": score.why}
    return {**row, **found, **({"extra": extra} if extra else {})}


def _text(reference: Any) -> str:
    if reference is None:
        return ""
    return reference if isinstance(reference, str) else json.dumps(reference, ensure_ascii=False)


def _score(answer: Judgement, verdict: Verdict | None, rubric: Rubric) -> Score:
    lenient = any(strict != loose for strict, loose in rubric.verdicts.values())
    if not answer.reference.strip():
        return Score(None, None, "unscored: the row has no gold answer")
    if verdict is None:
        return Score(0.0, None, "no answer", {"lenient": 0.0} if lenient else {})
    if verdict.word is None:
        return Score(None, None, f"{UNREAD} {verdict.reply[:80]!r}")
    strict, loose = rubric.verdicts[verdict.word]
    return Score(strict, verdict.word, f"the judge says {verdict.word}", {"lenient": loose} if lenient else {})


# --- one question ----------------------------------------------------------------------------------------------------


def exchange(rubric: Rubric, answer: Judgement) -> Exchange:
    """Ask once; the `Verdict`."""
    replies = yield Request(messages(rubric, answer), temperature=0.0, max_tokens=MAX_TOKENS)
    verdict = Verdict(word=word_of(replies[0], rubric.verdicts), reply=replies[0].text)
    verdict.add_tokens(replies)
    if verdict.word is None:
        verdict.rejected["no verdict"] += 1
    return verdict


def messages(rubric: Rubric, answer: Judgement) -> list[Message]:
    """The rubric as system message, and the three texts, fenced."""
    code, words = fence(answer), " or ".join(rubric.verdicts)
    parts = {"question": answer.question, "reference answer": answer.reference, "response": answer.response}
    fenced = [f"=== {name} {code} begins ===\n{text}\n=== {name} {code} ends ===" for name, text in parts.items()]
    task = f"Which verdict does the response {code} earn? Reply with one word and nothing else: {words}."
    system = f"{rubric.instructions}\n\nReply with one word and nothing else: {words}."
    return [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join([*fenced, task])}]


def fence(answer: Judgement) -> str:
    """A code that none of the texts holds: it is a digest of all of them."""
    texts = [answer.question, answer.reference, answer.response]
    code = digests.of(texts)
    while any(code in text for text in texts):
        code = hashlib.sha256(code.encode()).hexdigest()[: digests.LENGTH]
    return code


def word_of(reply: Reply, verdicts: Mapping[str, Any]) -> str | None:
    """The verdict that the whole reply is, a judge's own thinking apart; None if it is anything else."""
    if reply.finish in (LENGTH, REFUSED):
        return None
    said = task_rules.strip_thinking(reply.text).strip(_AROUND).upper()
    word = re.sub(r"[\s-]+", "_", said)
    return word if word in verdicts else None


# --- a whole evaluation ----------------------------------------------------------------------------------------------


def rescored(judge: Judge, task: Task, scores: Row, items: dict[str, list[Row]]) -> tuple[Row, dict[str, list[Row]]]:
    """What `evaluate` found of one task, with the judge's scores in all of its units and in their settings."""
    if task.rubric is None:
        return scores, items
    name, rubric = task.name, task.rubric
    found = {unit: judged(judge, name, rubric, rows) for unit, rows in items.items()}
    summary = dict(scores["tasks"][name])
    for unit, rows in found.items():
        part = unit.removeprefix(name).removeprefix("-")
        if "pass_at" in summary and rows and "sample" in rows[0]:
            ks = [int(k) for k in summary["pass_at"]["values"]]
            summary["pass_at"] = scoring.summarize_samples(rows, ks)
        elif part:
            summary[part] = scoring.summarize(rows, judge.note(rows))
        else:
            summary |= scoring.summarize(rows, judge.note(rows))
    settings = {unit: {**known, **judge.settings(rubric)} for unit, known in scores["settings"].items()}
    return {**scores, "tasks": {name: summary}, "settings": settings}, found
