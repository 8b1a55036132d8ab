"""A model as the judge of open answers: asked for one word at temperature 0, and believed only if it says just that.

The judge is shown question, reference and response, each between fences that carry a code made of all three, so no text
can contain the fence that would end it. Its reply is read as a whole: "INCORRECT" is not a kind of "CORRECT", and a
sentence is no verdict. A reply that cannot be read is counted and its answer not scored. Replies are stored before they
are used (see `llm.reply_store`), so an interrupted evaluation goes on, and a repeated one costs nothing. Where a limit
or a fault of the endpoint leaves an answer without a reply, it waits: it is unscored, and may be judged later.

What this does not prevent: a judge that is talked into a wrong word. The verdict is still its own reply, never text of
the response.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

from sdft_cli.errors import SdftError, UsageError
from sdft_cli.evaluation.judge_errors import in_own_words
from sdft_cli.grading import task_rules
from sdft_cli.grading.thinking import strip_reasoning
from sdft_cli.llm.language_model import LanguageModel, model_id, open_model
from sdft_cli.llm.local_model import LocalModel
from sdft_cli.llm.progress import Progress, ProgressDisplay
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.store_file import StoreInUse
from sdft_cli.llm.types import (
    STOP,
    Exchange,
    ModelId,
    PromptResult,
    Reply,
    Request,
    TeacherOptions,
    advance,
    told,
)
from sdft_cli.models import digests
from sdft_cli.runs.files import check_place
from sdft_cli.runs.records import ItemRecord, ItemScore
from sdft_cli.types import Json, Message, Rubric, Score

Scored = TypeVar("Scored", bound=ItemScore)
#: Room for a judge that thinks before it answers; one that does not is done after a word.
MAX_TOKENS = 2048
#: How the reason for an unreadable reply begins.
UNREAD = "unscored: the judge replied"
#: How the reason begins of an answer that has not been judged, and may be later.
WAITING = "unscored: not judged yet"
#: Seconds between two looks at a reply store that another process has open.
PAUSE = 0.2
#: What may surround the word: white space, emphasis, quotes, a full stop.
_AROUND = " \t\r\n*_`'\"“”‘’.!#"


@dataclass(frozen=True)
class Judgement:
    """What is judged: a ``response`` to a ``question``, given the ``reference`` answer."""

    question: str
    reference: str
    response: str


#: A question that every judge can answer, to find out whether it answers at all.
TRIAL = Judgement("What is two plus two?", "four", "Two plus two is four.")


@dataclass
class Verdict(PromptResult):
    """The outcome of one question to the judge: the word, or None and the reply that could not be read."""

    word: str | None = None
    reply: str = ""

    @property
    def accepted(self) -> int:
        return int(self.word is not None)


class Outcome(NamedTuple):
    """The scores of answers in their order, and what went wrong where some of them still wait (see `WAITING`)."""

    scores: list[Score]
    failure: SdftError | None


class Judge:
    """``options`` name the model and its endpoint. Replies are kept below ``folder``, one file per task; one process at
    a time asks about a task, others wait and find its replies. ``progress`` shows what is asked."""

    def __init__(
        self,
        options: TeacherOptions,
        folder: Path,
        progress: Callable[[str, int], AbstractContextManager[Progress]] = ProgressDisplay,
    ):
        self.options, self.folder, self.progress = options, folder, progress
        self.loaded: LocalModel | None = None
        self.left_out: list[str] = []  # what its endpoint refuses, as far as it has been asked

    @cached_property
    def model_id(self) -> Mapping[str, str]:
        """See `llm.types.ModelId`; a local model's files are read for it."""
        return {key: str(value) for key, value in model_id(self.options).items()}

    def settings(self, rubric: Rubric) -> dict[str, str]:
        """In what two judged evaluations must agree besides their other settings (see `comparable`).

        A judge whose endpoint refuses a temperature of 0 is another judge: that is known once it has been asked.
        """
        left_out = {"judge_without": ", ".join(self.left_out)} if self.left_out else {}
        rubric_digest = digests.of([rubric.instructions, dict(rubric.verdicts)])
        return {"judge": self.model_id["model"], "rubric": rubric_digest, **left_out}

    def note(self, records: Sequence[ItemScore]) -> str:
        """What a reader of these scores must know."""
        unread = sum(record["why"].startswith(UNREAD) for record in records)
        left = sum(map(waits, records))
        return (
            f"judged by {self.model_id['model']}"
            + (f" without {', '.join(self.left_out)}, which its endpoint refuses" if self.left_out else "")
            + (f"; {unread} replies could not be read" if unread else "")
            + (f"; {left} answers are not judged yet" if left else "")
        )

    def scores(self, name: str, rubric: Rubric, answers: Sequence[Judgement]) -> list[Score]:
        """The judge's score of every answer, in order; an empty response is wrong without asking.

        Raises `SdftError` if the endpoint fails or the budget is used up; the replies received until then are kept.
        """
        scores, failure = self.outcome(name, rubric, answers)
        if failure:
            raise failure
        return scores

    def outcome(self, name: str, rubric: Rubric, answers: Sequence[Judgement]) -> Outcome:
        """The same, as far as it goes: whatever has no reply waits."""
        questions = list(dict.fromkeys(a for a in answers if a.reference.strip() and a.response.strip()))
        verdicts, failure = self._ask(name, rubric, questions) if questions else ({}, None)
        waiting = Score(None, None, f"{WAITING}: {failure.message}" if failure else WAITING)
        asked = set(questions)
        return Outcome(
            [waiting if a in asked and a not in verdicts else _score(a, verdicts.get(a), rubric) for a in answers],
            failure,
        )

    def try_out(self, rubric: Rubric) -> str:
        """Whether the judge can be reached and understands what it is asked: a trivial question, which is not stored
        and not counted. Of a local model only the files are looked at. Returns a remark on a reply that is no verdict.

        Raises `SdftError` where the judge cannot work at all.
        """
        try:
            check_place(self.folder)
        except OSError as error:
            problem = f"the judge's replies cannot be kept in {self.folder}: {error.strerror}"
            raise UsageError(problem, "name another folder: --set judge.replies=FOLDER") from error
        if self.options.local is not None:
            from sdft_cli.config.model_locations import locate
            from sdft_cli.models import pretrained

            pretrained.load_chat(locate(self.options.local or "micro"))
            return ""
        with TemporaryDirectory() as folder, ReplyStore(Path(folder) / "trial.sqlite") as store:
            model = open_model(_unlimited(self.options), store, Progress())
            try:
                model.run([exchange(rubric, TRIAL)], lambda result: None)
            except SdftError as error:
                raise in_own_words(error) from error
            self.left_out = model.left_out
            verdict = _stored(store, model.model_id, rubric, TRIAL)
        if verdict and verdict.word:
            return ""
        reply = verdict.reply[:80] if verdict else ""
        asked = f"where {' or '.join(rubric.verdicts)} was asked for"
        return f"the judge {self.model_id['model']} replied {reply!r} {asked}: what it judges like that stays unscored"

    def release(self) -> None:
        """Give back the memory of a local judge; it is loaded again when it is asked again."""
        if self.loaded is None:
            return
        import torch

        self.loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _ask(
        self, name: str, rubric: Rubric, answers: Sequence[Judgement]
    ) -> tuple[dict[Judgement, Verdict], SdftError | None]:
        """The verdicts that there are at the end, and what kept the judge from giving the others."""
        failure = None
        try:
            with self._store(name) as store, self.progress(f"judge of {name}", len(answers)) as progress:
                model = self._model(store, progress)
                try:
                    model.run([exchange(rubric, answer) for answer in answers], progress.finished)
                except SdftError as error:
                    failure = in_own_words(error)
                self.left_out = model.left_out
                found = ((answer, _stored(store, model.model_id, rubric, answer)) for answer in answers)
                return {answer: verdict for answer, verdict in found if verdict}, failure
        except SdftError as error:  # the store cannot be opened
            return {}, error

    @contextmanager
    def _store(self, name: str) -> Iterator[ReplyStore]:
        """The replies about a task; waits for another process that has them open."""
        store: ReplyStore | None = None
        while store is None:
            try:
                store = ReplyStore(self.folder / f"{name}.sqlite")
            except StoreInUse:
                time.sleep(PAUSE)
        with store:
            yield store

    def _model(self, store: ReplyStore, progress: Progress) -> LanguageModel:
        """A local model is loaded once, until `release`."""
        if self.options.local is None:
            return open_model(self.options, store, progress)
        if self.loaded is None:
            self.loaded = LocalModel(self.options, store, progress)
        self.loaded.store, self.loaded.progress = store, progress
        return self.loaded


def judged(judge: Judge, name: str, rubric: Rubric, records: Sequence[ItemRecord]) -> list[ItemRecord]:
    """Item records with the judge's scores in place of the grader's, whose value is kept among the ``extra`` ones."""
    answers = [judgement_of(record["prompt"], record["answer"], record["completion"]) for record in records]
    scores = judge.scores(name, rubric, answers)
    return [overruled(record, score) for record, score in zip(records, scores, strict=True)]


def waits(record: ItemScore) -> bool:
    """Whether an answer has not been judged, and may be later."""
    return record["value"] is None and record["why"].startswith(WAITING)


def judgement_of(question: str, gold: Json, completion: str) -> Judgement:
    """What is judged of a completion: all but its thinking, and the gold answer without its own."""
    reference = "" if gold is None else gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False)
    return Judgement(question, strip_reasoning(reference), task_rules.strip_thinking(completion).strip())


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


def _unlimited(options: TeacherOptions) -> TeacherOptions:
    return replace(options, max_requests=None, max_cost=None, ledger=None)


# --- one question ----------------------------------------------------------------------------------------------------


def exchange(rubric: Rubric, answer: Judgement) -> Exchange:
    """Asks once and returns the `Verdict`."""
    replies = yield Request(messages(rubric, answer), temperature=0.0, max_tokens=MAX_TOKENS)
    verdict = Verdict(word=word_of(replies[0], rubric.verdicts), reply=told(replies[0]))
    verdict.add_tokens(replies)
    if verdict.word is None:
        verdict.rejected["no verdict"] += 1
    return verdict


def _stored(store: ReplyStore, model: ModelId, rubric: Rubric, answer: Judgement) -> Verdict | None:
    """The verdict on an answer by the reply that is stored; None where there is none."""
    asking = exchange(rubric, answer)
    request = advance(asking, None)
    replies = store.replies(request.digest(model), request.samples) if isinstance(request, Request) else None
    verdict = advance(asking, replies) if replies else None
    return verdict if isinstance(verdict, Verdict) else None


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
