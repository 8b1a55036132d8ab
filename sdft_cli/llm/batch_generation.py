"""Data generation through a Batch API: submit every prompt's next request, collect the replies hours later."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from sdft_cli.errors import SdftError
from sdft_cli.llm.batch_api import BatchJobs
from sdft_cli.llm.batch_store import BatchStore
from sdft_cli.llm.data_generation import data_generation, next_request, store_path
from sdft_cli.llm.http_client import endpoint_model_id
from sdft_cli.llm.progress import Progress, ProgressDisplay
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.types import Request, TeacherOptions
from sdft_cli.types import Prepared, Task


class Submission(TypedDict):
    """How many of the prompts are open, and the ids of the batches submitted now and of all that are awaited."""

    task: str
    prompts: int
    open: int
    submitted: list[str]
    waiting: list[str]


def submit(task: Task, prepared: Prepared, options: TeacherOptions, data: Path, seed: int) -> Submission:
    """Submit the next request of every prompt that the stored replies do not answer."""
    with ReplyStore(store_path(data, task)) as store:
        requests, prompts = _open_requests(task, prepared, options, seed, store)
        submitted = BatchJobs(options, store, Progress()).submit(requests)
        waiting = [batch.id for batch in BatchStore(store.file).open()]
    return {
        "task": task.name,
        "prompts": prompts,
        "open": len(requests),
        "submitted": submitted,
        "waiting": waiting,
    }


def submission_text(result: Submission) -> str:
    """The result for people."""
    submitted, waiting = (", ".join(ids) or "nothing" for ids in (result["submitted"], result["waiting"]))
    return (
        f"{result['task']}: {result['open']} of {result['prompts']} prompts are open; submitted now: {submitted}\n"
        f"    waiting for {waiting}; --batch collect fetches finished batches"
    )


def collect(task: Task, prepared: Prepared, options: TeacherOptions, data: Path, seed: int) -> None:
    """Store the replies of finished batches; raises `SdftError`, with what to do next, if prompts are still open."""
    progress = ProgressDisplay(task.name)
    with ReplyStore(store_path(data, task)) as store:
        collected = BatchJobs(options, store, progress).collect()
        requests, prompts = _open_requests(task, prepared, options, seed, store)
    progress.note(f"collected {collected.replies} replies and {collected.errors} errors")
    for line in dict.fromkeys([*collected.problems, *collected.unfinished]):
        progress.note(line)
    if requests:
        again = "collect again later" if collected.unfinished else "--batch submit submits their next samples"
        raise SdftError(f"task {task.name!r}: {len(requests)} of {prompts} prompts are still open", again)


def _open_requests(
    task: Task, prepared: Prepared, options: TeacherOptions, seed: int, store: ReplyStore
) -> tuple[list[Request], int]:
    """The next request of every exchange that the store cannot finish, and the number of all exchanges."""
    exchanges = data_generation(task, prepared, options, seed).exchanges
    states = [next_request(exchange, store, endpoint_model_id(options)) for exchange in exchanges]
    return [request for request, _ in states if request], len(exchanges)
