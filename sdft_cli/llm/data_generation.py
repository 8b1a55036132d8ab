"""Data generation: a teacher writes demonstrations and questions, and every reply is stored before it is used.

A train row without a demonstration gets the first sample that the task's own grader finds right
(`llm.rejection_sampling`); a task that has articles (``corpus``) and no rows gets questions about them
(`llm.article_questions`). The rows depend only on the sources and on the stored replies, so the same sources and the
same store give the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypedDict

from sdft_cli.data.manifest import TeacherCounts, TeacherRecord
from sdft_cli.errors import SdftError
from sdft_cli.llm.article_questions import Questions
from sdft_cli.llm.language_model import LanguageModel, open_model
from sdft_cli.llm.progress import ProgressDisplay
from sdft_cli.llm.rejection_sampling import Demonstrations
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.types import Exchange, ModelId, PromptResult, Request, TeacherOptions, advance
from sdft_cli.types import Example, Prepared, Task


class DataGeneration(Protocol):
    """What a teacher is asked about one task, and what becomes of its rows."""

    exchanges: list[Exchange]
    max_tokens: int

    @property
    def subjects(self) -> list[Example]:
        """The row, or the article, of each exchange."""
        ...

    @property
    def requests(self) -> tuple[int, int]:
        """The fewest and the most requests that one exchange takes."""
        ...

    def apply(self, results: Sequence[PromptResult]) -> Prepared:
        """The task's rows with what the teacher wrote; ``results`` are in the order of the exchanges."""
        ...

    def counts(self, results: Sequence[PromptResult]) -> TeacherCounts:
        """What the manifest says about the results."""
        ...


def data_generation(task: Task, prepared: Prepared, options: TeacherOptions, seed: int) -> DataGeneration:
    """Questions for a task that has articles and no rows, demonstrations for any other."""
    if prepared.splits.get("corpus") and not prepared.splits.get("train"):
        return Questions(prepared, options, seed)
    return Demonstrations(task, prepared, options)


def generate(
    task: Task, prepared: Prepared, options: TeacherOptions, data: Path, seed: int
) -> tuple[Prepared, TeacherRecord]:
    """``prepared`` with what the teacher wrote for it, and the manifest's record of the teacher.

    Replies are kept in ``data/.teacher/<task>.sqlite``; one that is stored is not requested again. Raises `SdftError`
    if a prompt got no reply, or if nothing usable came of any; the replies stay stored.
    """
    generation = data_generation(task, prepared, options, seed)
    with (
        ReplyStore(store_path(data, task)) as store,
        ProgressDisplay(task.name, len(generation.exchanges)) as progress,
    ):
        if not generation.exchanges:
            progress.note("nothing to ask: every train row has a demonstration (--resample requests new ones)")
        model = open_model(options, store, progress)
        results = model.run(generation.exchanges, progress.finished)
    if generation.exchanges and not any(result.accepted for result in results):
        reasons = ", ".join(f"{n} {reason}" for reason, n in _rejected(results).items()) or "it wrote nothing"
        refusals = [result.refusal for result in results if result.refusal]
        reasons += f"; the last refusal: {refusals[-1]}" if refusals else ""
        raise SdftError(
            f"task {task.name!r}: nothing the teacher wrote can be used ({reasons})",
            "try another or a larger teacher, more --samples or a higher --max-tokens",
        )
    return generation.apply(results), _record(model, options, generation, results)


class _LeftOut(TypedDict, total=False):
    """What the endpoint refuses, if it refuses anything: see `TeacherRecord`."""

    left_out: list[str]


def store_path(data: Path, task: Task) -> Path:
    """Where the replies about a task are kept."""
    return data / ".teacher" / f"{task.name}.sqlite"


def next_request(exchange: Exchange, store: ReplyStore | None, model_id: ModelId) -> tuple[Request | None, int]:
    """The first request of an exchange that the store cannot answer (None: it ends), and how many it can answer."""
    answered, state = 0, advance(exchange, None)
    while isinstance(state, Request):
        replies = store.replies(state.digest(model_id), state.samples) if store else None
        if replies is None:
            return state, answered
        answered, state = answered + 1, advance(exchange, replies)
    return None, answered


def _rejected(results: Sequence[PromptResult]) -> dict[str, int]:
    return dict(sorted(sum((result.rejected for result in results), Counter[str]()).items()))


def _record(
    model: LanguageModel, options: TeacherOptions, generation: DataGeneration, results: Sequence[PromptResult]
) -> TeacherRecord:
    """The manifest's record: nothing in it depends on errors, on time, or on how often a run was started."""
    left_out: _LeftOut = {"left_out": model.left_out} if model.left_out else {}
    return {
        **model.model_id,
        **left_out,
        "temperature": options.temperature,
        "max_tokens": generation.max_tokens,
        "samples": options.samples,
        "send": options.send,
        **generation.counts(results),
        "rejected": _rejected(results),
        "prompt_tokens": sum(result.prompt_tokens for result in results),
        "completion_tokens": sum(result.completion_tokens for result in results),
    }
