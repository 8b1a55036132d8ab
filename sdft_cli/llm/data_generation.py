"""Demonstrations and questions from a teacher: rows in, rows out, every reply stored before it is used.

A train row without a demonstration gets the first sample that the task's own grader finds right; a task that has
articles (``corpus``) and no rows yet gets questions about them. What a row gets depends on the stored replies alone,
so the same sources and the same store give the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sdft_cli import console
from sdft_cli.errors import SdftError, UsageError, choose
from sdft_cli.llm import batch_api, endpoint, local
from sdft_cli.llm.article_questions import Questions
from sdft_cli.llm.budget import Prices
from sdft_cli.llm.progress import TeacherDisplay
from sdft_cli.llm.rejection_sampling import Demonstrations
from sdft_cli.llm.reply_store import Store
from sdft_cli.llm.types import OURS, LanguageModel, Outcome, Pursuit, Request, TeacherOptions, prompt_tokens, step
from sdft_cli.llm.usage import Tally
from sdft_cli.types import Prepared, Task

_USELESS = "try another or a larger teacher, more --samples or more --max-tokens"
_FOR_ENDPOINTS = (
    "base_url",
    "api_key_file",
    "rpm",
    "tpm",
    "max_requests",
    "max_cost",
    "price_in",
    "price_out",
    "batch",
)
BATCH = ("submit", "collect")


def check(options: TeacherOptions) -> None:
    """Every complaint about the options that needs neither a file nor the network."""
    if options.temperature == 0 and options.samples > 1:
        raise UsageError("at --temperature 0 every sample is the same", "add --samples 1, or raise the temperature")
    if options.batch is not None and options.batch not in BATCH:
        raise choose("value for --batch", options.batch, BATCH)
    if options.at_once > options.samples:
        raise UsageError(f"--at-once {options.at_once} is more than --samples {options.samples}")
    if options.base_url is not None and not options.base_url.startswith(("http://", "https://")):
        raise UsageError("--base-url begins with neither http:// nor https://", "write it as https://host/v1")
    if taken := [name for name in options.send if name in OURS]:
        raise UsageError(f"--send {taken[0]}: sdft sets this part of a request", f"taken: {', '.join(OURS)}")
    if options.max_cost is not None and not Prices(options.price_in, options.price_out).known:
        raise UsageError("--max-cost needs prices", "add --price-in and --price-out, per million tokens")
    given = [name for name in _FOR_ENDPOINTS if getattr(options, name) is not None]
    if options.local is not None and given:
        raise UsageError(f"--{given[0].replace('_', '-')} is for an endpoint, and the teacher is a local model")


def demonstrate(
    task: Task, prepared: Prepared, options: TeacherOptions, data: Path, seed: int
) -> tuple[Prepared, dict[str, Any]]:
    """``prepared`` with what the teacher gave it, and the manifest's record of that: model, settings, counts, tokens.

    Replies lie in ``data/.teacher/<task>.sqlite``; a reply that is there is not asked for again. Raises `SdftError`
    where not all could be asked or nothing came of it; what was answered stays stored.
    """
    work = _work(task, prepared, options, seed)
    tally = Tally(prompts=len(work.pursuits))
    with Store(_store_path(data, task)) as store:
        if options.batch == "collect":
            _collect(task, _work(task, prepared, options, seed), options, store)
        teacher = _teacher(options, store, tally)
        with TeacherDisplay(task.name, tally) as display:

            def told(outcome: Outcome) -> None:
                tally.ended(outcome)
                display.update()

            if not work.pursuits:
                display.note("nothing to ask: every train row has a demonstration (--resample asks for new ones)")
            outcomes = teacher.run(work.pursuits, told)
    if work.pursuits and not any(outcome.examples for outcome in outcomes):
        why = ", ".join(f"{n} {reason}" for reason, n in _rejected(outcomes).items()) or "nothing was said"
        raise SdftError(f"task {task.name!r}: nothing that the teacher said can be used ({why})", _USELESS)
    return work.done(outcomes), _record(teacher.named, options, work, outcomes)


def plan(task: Task, prepared: Prepared, options: TeacherOptions, data: Path, seed: int) -> dict[str, Any]:
    """What `demonstrate` would send, with nothing sent: counts, an example request, and the least and the most of
    requests, tokens (prompts by a third of their bytes, replies by their limit) and money. What is stored is free."""
    work, named = _work(task, prepared, options, seed), _named(options)
    path = _store_path(data, task)
    if path.is_file():
        with Store(path) as store:
            left = [_walk(pursuit, store, named) for pursuit in work.pursuits]
    else:
        left = [_walk(pursuit, None, named) for pursuit in work.pursuits]
    open_ = [(request, used) for request, used in left if request]
    least, most = work.requests
    sent = [len(open_) * least, sum(most - used for _, used in open_)]
    sizes = [(prompt_tokens(request.messages), most - used) for request, used in open_]
    read = [sum(size for size, _ in sizes), sum(size * times for size, times in sizes)]
    written = sum(r.max_tokens * len(r.samples) * (most - used) for r, used in open_)
    prices = Prices(options.price_in, options.price_out)
    return {
        "task": task.name,
        "teacher": named,
        "prompts": len(work.pursuits),
        "answered_by_the_store": len(work.pursuits) - len(open_),
        "requests": sent,
        "prompt_tokens": read,
        "completion_tokens_at_most": written,
        "cost_at_most": prices.cost(read[1], written) if prices.known else None,
        "example": {"model": named["model"], **open_[0][0].body()} if open_ else None,
    }


def plan_text(facts: dict[str, Any]) -> str:
    """`plan`'s facts for people, the example last."""
    at_least, at_most = facts["requests"]
    lines = [
        f"{facts['task']}: {facts['prompts']} prompts for {facts['teacher']['model']}, "
        f"{facts['answered_by_the_store']} of them answered by what is stored",
        f"    requests: {at_least:,} to {at_most:,}; nothing was sent",
        f"    tokens: about {facts['prompt_tokens'][0]:,} to {facts['prompt_tokens'][1]:,} in, "
        f"at most {facts['completion_tokens_at_most']:,} out",
    ]
    if facts["cost_at_most"] is not None:
        lines.append(f"    cost: at most {facts['cost_at_most']:.2f}")
    if facts["example"]:
        lines.append("    the first request:")
        lines += [f"        {line}" for line in json.dumps(facts["example"], ensure_ascii=False, indent=1).split("\n")]
    return "\n".join(lines)


def submit(task: Task, prepared: Prepared, options: TeacherOptions, data: Path, seed: int) -> dict[str, Any]:
    """Hand over every prompt's next request to the endpoint's Batch API: how many, and the batches they are in."""
    with Store(_store_path(data, task)) as store:
        left = [_walk(p, store, _named(options))[0] for p in _work(task, prepared, options, seed).pursuits]
        requests = [request for request in left if request]
        made = batch_api.BatchJobs(options, store, Tally()).submit(requests)
        waiting = [handed.id for handed in store.handed()]
    return {"task": task.name, "prompts": len(left), "open": len(requests), "submitted": made, "waiting": waiting}


def submit_text(facts: dict[str, Any]) -> str:
    """`submit`'s facts for people."""
    said = f"{facts['task']}: {facts['open']} of {facts['prompts']} prompts are open; "
    said += f"submitted now: {', '.join(facts['submitted']) or 'nothing'}"
    return f"{said}\n    waiting for {', '.join(facts['waiting']) or 'nothing'}; --batch collect fetches what is done"


def _collect(task: Task, work: _Work, options: TeacherOptions, store: Store) -> None:
    """Fetch what is done; raises `SdftError` where prompts are still open, with what to do about it."""
    tally = Tally(say=lambda text: console.err.print(f"{task.name}: {text}", soft_wrap=True, markup=False))
    found = batch_api.BatchJobs(options, store, tally).collect()
    tally.say(f"collected {found.replies} replies and {found.faults} faults")
    for what in dict.fromkeys([*found.errors, *found.waiting]):
        tally.say(what)
    left = sum(_walk(pursuit, store, _named(options))[0] is not None for pursuit in work.pursuits)
    if left:
        hint = "collect again later" if found.waiting else "--batch submit hands over their next samples"
        raise SdftError(f"task {task.name!r}: {left} of {len(work.pursuits)} prompts are still open", hint)


class _Work(Protocol):
    """What is to be asked about one task: rows or articles."""

    pursuits: list[Pursuit]
    max_tokens: int

    @property
    def requests(self) -> tuple[int, int]:
        """The fewest and the most requests that one pursuit takes."""
        ...

    def done(self, outcomes: Sequence[Outcome]) -> Prepared: ...
    def counts(self, outcomes: Sequence[Outcome]) -> dict[str, Any]: ...


def _work(task: Task, prepared: Prepared, options: TeacherOptions, seed: int) -> _Work:
    if prepared.splits.get("corpus") and not prepared.splits.get("train"):
        return Questions(prepared, options, seed)
    return Demonstrations(task, prepared, options)


def _named(options: TeacherOptions) -> dict[str, Any]:
    return (endpoint if options.local is None else local).named(options)


def _teacher(options: TeacherOptions, store: Store, tally: Tally) -> LanguageModel:
    if options.local is None:
        return endpoint.Endpoint(options, store, tally)
    return local.LocalTeacher(options, store, tally)


def _store_path(data: Path, task: Task) -> Path:
    return data / ".teacher" / f"{task.name}.sqlite"


def _walk(pursuit: Pursuit, store: Store | None, named: dict[str, Any]) -> tuple[Request | None, int]:
    """The first request of a pursuit that the store does not answer (None: it is at its end), and how many it does."""
    answered, at = 0, step(pursuit, None)
    while isinstance(at, Request):
        replies = store.replies(at.digest(named), at.samples) if store else None
        if replies is None:
            return at, answered
        answered, at = answered + 1, step(pursuit, replies)
    return None, answered


def _rejected(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return dict(sorted(sum((outcome.rejected for outcome in outcomes), Counter[str]()).items()))


def _record(named: dict[str, Any], options: TeacherOptions, work: _Work, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The manifest's part: nothing in it depends on faults, on time or on how often a run was begun."""
    return {
        **named,
        "temperature": options.temperature,
        "max_tokens": work.max_tokens,
        "samples": options.samples,
        "send": options.send,
        **work.counts(outcomes),
        "rejected": _rejected(outcomes),
        "prompt_tokens": sum(outcome.prompt_tokens for outcome in outcomes),
        "completion_tokens": sum(outcome.completion_tokens for outcome in outcomes),
    }
