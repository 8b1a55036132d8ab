"""A trial of a teacher: a few prompts with every reply and its verdict, and no dataset.

Replies are stored as in a full run, which therefore does not ask for them again.
"""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, TypedDict

from sdft_cli.grading.task_rules import strip_thinking
from sdft_cli.llm.data_generation import data_generation, store_path
from sdft_cli.llm.language_model import open_model
from sdft_cli.llm.progress import ProgressDisplay
from sdft_cli.llm.rejection_sampling import rejection
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.types import Exchange, ModelId, PromptResult, Reply, Request, TeacherOptions, advance
from sdft_cli.models.views import answer_text
from sdft_cli.types import Example, Json, Message, Prepared, Task

ACCEPTED = "accepted"
Conversation = list[tuple[Request, list[Reply]]]


class TriedReply(TypedDict):
    """A reply as it was written; for a demonstration with the verdict, what the grader read out of it, and why."""

    sample: int
    text: str
    finish: str
    verdict: NotRequired[str]
    extracted: NotRequired[str | None]
    why: NotRequired[str]


class TriedPrompt(TypedDict):
    """A prompt and the replies to it; ``questions`` are those accepted about an article, with their answers.

    ``rejected`` counts replies, or parts of replies, by reason.
    """

    id: str
    messages: list[Message]
    answer: Json
    replies: list[TriedReply]
    accepted: int
    questions: NotRequired[list[tuple[str, str]]]
    rejected: dict[str, int]


class Trial(TypedDict):
    """What came of the prompts tried for one task; ``store`` is the file that keeps the replies."""

    task: str
    teacher: ModelId
    prompts: list[TriedPrompt]
    store: str


def try_out(task: Task, prepared: Prepared, options: TeacherOptions, data: Path, seed: int) -> Trial:
    """Ask the teacher about ``prepared`` and show everything; only the replies are stored.

    Raises `SdftError` as `data_generation.generate` does, but not if every reply is wrong: that is worth seeing.
    """
    generation = data_generation(task, prepared, options, seed)
    path = store_path(data, task)
    seen: list[Conversation] = [[] for _ in generation.exchanges]
    exchanges = [_watched(exchange, said) for exchange, said in zip(generation.exchanges, seen, strict=True)]
    with ReplyStore(path) as store, ProgressDisplay(task.name, len(exchanges)) as progress:
        model = open_model(options, store, progress)
        results = model.run(exchanges, progress.finished)
    prompts = [_tried(task, *tried) for tried in zip(generation.subjects, seen, results, strict=True)]
    return {"task": task.name, "teacher": model.model_id, "prompts": prompts, "store": str(path)}


def trial_text(trial: Trial) -> str:
    """The trial for people."""
    lines = []
    for number, prompt in enumerate(trial["prompts"], start=1):
        lines += [f"=== {trial['task']} {number} of {len(trial['prompts'])}: {prompt['id']}", *_prompt_lines(prompt)]
    won = sum(prompt["accepted"] > 0 for prompt in trial["prompts"])
    replies = sum(len(prompt["replies"]) for prompt in trial["prompts"])
    if not trial["prompts"]:
        return f"{trial['task']}: nothing to ask: every train row has a demonstration (--resample requests new ones)"
    lines += [
        f"{trial['task']}: {won} of {len(trial['prompts'])} prompts have a usable reply, among {replies} replies of "
        f"{trial['teacher']['model']}; no dataset was written",
        f"    the replies are kept in {trial['store']}; without --show and --limit the same command uses them and asks "
        "about the other rows",
    ]
    return "\n".join(lines)


def _watched(exchange: Exchange, said: Conversation) -> Exchange:
    """The same exchange, which also notes what is said."""
    state = advance(exchange, None)
    while isinstance(state, Request):
        replies = yield state
        said.append((state, replies))
        state = advance(exchange, replies)
    return state


def _tried(task: Task, subject: Example, said: Conversation, result: PromptResult) -> TriedPrompt:
    replies = [(number, reply) for request, some in said for number, reply in zip(request.samples, some, strict=True)]
    tried: TriedPrompt = {
        "id": subject.id,
        "messages": said[0][0].messages if said else subject.prompt,
        "answer": subject.answer,
        "replies": [_reply(task, subject, number, reply) for number, reply in replies],
        "accepted": result.accepted,
        "rejected": dict(result.rejected),
    }
    if not subject.prompt:  # an article
        tried["questions"] = [(row.prompt[0]["content"], answer_text(row)) for row in result.examples]
    return tried


def _reply(task: Task, subject: Example, number: int, reply: Reply) -> TriedReply:
    shown: TriedReply = {"sample": number, "text": reply.text, "finish": reply.finish}
    if not subject.prompt:
        return shown
    text = strip_thinking(reply.text).strip()
    reason = rejection(reply, text, subject, task)
    score = task.grade(text, subject) if text else None
    return {
        **shown,
        "verdict": reason or ACCEPTED,
        "extracted": score.extracted if score else None,
        "why": score.why if score else "",
    }


def _prompt_lines(prompt: TriedPrompt) -> list[str]:
    lines = [f"[{message['role']}]\n{message.get('content') or ''}" for message in prompt["messages"]]
    if prompt["answer"] is not None:
        lines.append(f"--- gold answer: {prompt['answer']}")
    for reply in prompt["replies"]:
        verdict = f": {reply['verdict']}" if "verdict" in reply else f" (ended: {reply['finish']})"
        read = f"; read as {reply['extracted']!r}" if reply.get("extracted") else ""
        why = f" ({reply['why']}{read})" if reply.get("why") else ""
        lines.append(f"--- sample {reply['sample']}{verdict}{why}\n{reply['text']}")
    if "questions" in prompt:
        rejected = "; ".join(f"{count} {reason}" for reason, count in prompt["rejected"].items())
        lines.append(
            f"--- {len(prompt['questions'])} questions accepted{f'; rejected: {rejected}' if rejected else ''}"
        )
        lines += [f"Question: {question}\nAnswer: {answer}" for question, answer in prompt["questions"]]
    return [*lines, ""]
