"""A model as the judge of open answers: asked for one word at temperature 0, and believed only if it says just that.

The judge is shown question, reference and response, each between fences that carry a code made of all three, so no text
can contain the fence that would end it. Its reply is read as a whole: "INCORRECT" is not a kind of "CORRECT", and a
sentence is no verdict. A reply that cannot be read is counted and its answer not scored. Replies are stored before they
are used (see `llm.reply_store`), so an interrupted evaluation goes on, and a repeated one costs nothing.

What this does not prevent: a judge that is talked into a wrong word. The verdict is still its own reply, never text of
the response.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sdft_cli.evaluation import summaries
from sdft_cli.evaluation.measurement import Measurement
from sdft_cli.grading import task_rules
from sdft_cli.llm.language_model import model_id, open_model
from sdft_cli.llm.progress import ProgressDisplay
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.types import STOP, Exchange, PromptResult, Reply, Request, TeacherOptions, why_no_answer
from sdft_cli.models import digests
from sdft_cli.runs.records import FurtherScores, ItemRecord, ItemScore
from sdft_cli.types import Json, Message, Rubric, Score, Task

Scored = TypeVar("Scored", bound=ItemScore)
#: Room for a judge that thinks before it answers; one that does not is done after a word.
MAX_TOKENS = 2048
#: How the reason for an unreadable reply begins.
UNREAD = "unscored: the judge replied"
#: What may surround the word: white space, emphasis, quotes, a full stop.
_AROUND = " \t\r\n*_`'\"“”‘’.!#"


@dataclass(frozen=True)
class Judgement:
    """What is judged: a ``response`` to a ``question``, given the ``reference`` answer."""

    question: str
    reference: str
    response: str


@dataclass
class Verdict(PromptResult):
    """The outcome of one question to the judge: the word, or None and the reply that could not be read."""

    word: str | None = None
    reply: str = ""

    @property
    def accepted(self) -> int:
        return int(self.word is not None)


class Judge:
    """``options`` name the model and its endpoint; replies are kept below ``folder``, one file per task."""

    def __init__(self, options: TeacherOptions, folder: Path):
        self.options, self.folder = options, folder
        self.model_id = model_id(options)
        self.left_out: list[str] = []

    def settings(self, rubric: Rubric) -> dict[str, str]:
        """In what two judged evaluations must agree besides their other settings (see `comparable`).

        A judge whose endpoint refuses a temperature of 0 is another judge. Complete once it has been asked.
        """
        left_out = {"judge without": ", ".join(self.left_out)} if self.left_out else {}
        rubric_digest = digests.of([rubric.instructions, dict(rubric.verdicts)])
        return {"judge": self.model_id["model"], "rubric": rubric_digest, **left_out}

    def note(self, records: Sequence[ItemScore]) -> str:
        """What a reader of these scores must know."""
        unread = sum(record["why"].startswith(UNREAD) for record in records)
        without = f" without {', '.join(self.left_out)}, which its endpoint refuses" if self.left_out else ""
        lost = f"; {unread} replies could not be read" if unread else ""
        return f"judged by {self.model_id['model']}{without}{lost}"

    def scores(self, name: str, rubric: Rubric, answers: Sequence[Judgement]) -> list[Score]:
        """The judge's score of every answer, in order; an empty response is wrong without asking.

        Raises `SdftError` if the endpoint fails; the replies received until then are kept.
        """
        questions = list(dict.fromkeys(a for a in answers if a.reference.strip() and a.response.strip()))
        verdicts = self._ask(name, rubric, questions)
        return [_score(answer, verdicts.get(answer), rubric) for answer in answers]

    def _ask(self, name: str, rubric: Rubric, answers: Sequence[Judgement]) -> dict[Judgement, Verdict]:
        with (
            ReplyStore(self.folder / f"{name}.sqlite") as store,
            ProgressDisplay(f"judge of {name}", len(answers)) as progress,
        ):
            model = open_model(self.options, store, progress)
            results = model.run([exchange(rubric, answer) for answer in answers], progress.finished)
            self.left_out = model.left_out
        return {a: result for a, result in zip(answers, results, strict=True) if isinstance(result, Verdict)}


def judged(judge: Judge, name: str, rubric: Rubric, records: Sequence[ItemRecord]) -> list[ItemRecord]:
    """Item records with the judge's scores in place of the grader's, whose value is kept among the ``extra`` ones."""
    answers = [judgement_of(record["prompt"], record["answer"], record["completion"]) for record in records]
    scores = judge.scores(name, rubric, answers)
    return [overruled(record, score) for record, score in zip(records, scores, strict=True)]


def judgement_of(question: str, gold: Json, completion: str) -> Judgement:
    """What is judged of a completion: all but its thinking."""
    reference = "" if gold is None else gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False)
    return Judgement(question, reference, task_rules.strip_thinking(completion).strip())


def overruled(item: Scored, score: Score) -> Scored:
    """The item with the judge's score; the grader's value is kept as the extra score ``without judge``."""
    graded: ItemScore = item
    changed = item.copy()
    before = {} if item["value"] is None else {"without judge": item["value"]}
    changed["value"], changed["extracted"], changed["why"] = score.value, score.extracted, score.why
    if extra := {**graded.get("extra", {}), **before, **score.extra}:
        changed["extra"] = extra
    return changed


def _score(answer: Judgement, verdict: Verdict | None, rubric: Rubric) -> Score:
    lenient = any(strict != loose for strict, loose in rubric.verdicts.values())
    if not answer.reference.strip():
        return Score(None, None, "unscored: the row has no gold answer")
    if verdict is None:
        return Score(0.0, None, "no answer", {"lenient": 0.0} if lenient else {})
    if verdict.word is None:
        return Score(None, None, f"{UNREAD} {verdict.reply[:80]!r}")
    strict, loose = rubric.verdicts[verdict.word]
    return Score(strict, verdict.word, f"the judge replied {verdict.word}", {"lenient": loose} if lenient else {})


# --- one question ----------------------------------------------------------------------------------------------------


def exchange(rubric: Rubric, answer: Judgement) -> Exchange:
    """Asks once and returns the `Verdict`."""
    replies = yield Request(messages(rubric, answer), temperature=0.0, max_tokens=MAX_TOKENS)
    reason = why_no_answer(replies[0])
    reply = f"nothing: {reason} {replies[0].text}".strip() if reason else replies[0].text
    verdict = Verdict(word=word_of(replies[0], rubric.verdicts), reply=reply)
    verdict.add_tokens(replies)
    if verdict.word is None:
        verdict.rejected["no verdict"] += 1
    return verdict


def messages(rubric: Rubric, answer: Judgement) -> list[Message]:
    """The rubric as the system message, and the three texts, fenced, as the user's."""
    code, words = fence(answer), " or ".join(rubric.verdicts)
    parts = {"question": answer.question, "reference answer": answer.reference, "response": answer.response}
    fenced = [f"=== {name} {code} begins ===\n{text}\n=== {name} {code} ends ===" for name, text in parts.items()]
    task = f"Which verdict does the response {code} earn? Reply with one word and nothing else: {words}."
    system = f"{rubric.instructions}\n\nReply with one word and nothing else: {words}."
    return [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join([*fenced, task])}]


def fence(answer: Judgement) -> str:
    """A code that none of the texts contains: it is a digest of all of them."""
    texts = [answer.question, answer.reference, answer.response]
    code = digests.of(texts)
    while any(code in text for text in texts):
        code = hashlib.sha256(code.encode()).hexdigest()[: digests.LENGTH]
    return code


def word_of(reply: Reply, verdicts: Mapping[str, object]) -> str | None:
    """The verdict, if the whole reply is one (a judge's own thinking apart); None if it is anything else."""
    if reply.finish != STOP:
        return None
    text = task_rules.strip_thinking(reply.text).strip(_AROUND).upper()
    word = re.sub(r"[\s-]+", "_", text)
    return word if word in verdicts else None


# --- a whole evaluation ----------------------------------------------------------------------------------------------


def rescored(judge: Judge, task: Task, measured: Measurement) -> Measurement:
    """One task's measurement with the judge's scores in all of its units, and the judge among their settings."""
    if task.rubric is None:
        return measured
    name, rubric = task.name, task.rubric
    items = {unit: judged(judge, name, rubric, records) for unit, records in measured.items.items()}
    tasks, further = dict(measured.tasks), measured.further.get(name, FurtherScores()).copy()
    for unit, records in items.items():
        summary = summaries.summarize(records, judge.note(records))
        match unit.removeprefix(name).removeprefix("-"):
            case "":
                tasks[name] = {**tasks[name], **summary}
            case "ood" | "oracle" | "ceiling" as part:
                further[part] = summary
            case "samples" if records:
                pass_at = further.get("pass_at") or measured.tasks[name]["pass_at"]
                further["pass_at"] = summaries.summarize_samples(records, [int(k) for k in pass_at["values"]])
    settings = {unit: {**of_unit, **judge.settings(rubric)} for unit, of_unit in measured.settings.items()}
    return Measurement(tasks, measured.suite, settings, items, {name: further})
