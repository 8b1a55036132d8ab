"""Dry run of a data generation: what a teacher would be asked and what that may cost, with nothing sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from sdft_cli.llm.budget import Prices
from sdft_cli.llm.data_generation import DataGeneration, data_generation, next_request, store_path
from sdft_cli.llm.language_model import model_id
from sdft_cli.llm.reply_store import ReplyStore
from sdft_cli.llm.types import ModelId, Request, TeacherOptions, estimate_prompt_tokens
from sdft_cli.types import Json, Prepared, Task


class DryRun(TypedDict):
    """The requests for one task and what they may cost; ranges are [fewest, most].

    Prompt tokens are estimated from bytes, completion tokens are the limit. ``example`` is the first request's body.
    """

    task: str
    teacher: ModelId
    prompts: int
    answered_by_the_store: int
    requests: list[int]
    prompt_tokens: list[int]
    completion_tokens_at_most: int
    cost_at_most: float | None
    example: dict[str, Json] | None


def dry_run(task: Task, prepared: Prepared, options: TeacherOptions, data: Path, seed: int) -> DryRun:
    """What `data_generation.generate` would send. Stored replies are free."""
    generation, teacher = data_generation(task, prepared, options, seed), model_id(options)
    left = _left(generation, store_path(data, task), teacher)
    fewest, most = generation.requests
    sizes = [(estimate_prompt_tokens(request.messages), most - answered) for request, answered in left]
    read = [sum(size for size, _ in sizes), sum(size * times for size, times in sizes)]
    written = sum(r.max_tokens * len(r.samples) * (most - answered) for r, answered in left)
    prices = Prices(options.price_in, options.price_out)
    return {
        "task": task.name,
        "teacher": teacher,
        "prompts": len(generation.exchanges),
        "answered_by_the_store": len(generation.exchanges) - len(left),
        "requests": [len(left) * fewest, sum(most - answered for _, answered in left)],
        "prompt_tokens": read,
        "completion_tokens_at_most": written,
        "cost_at_most": prices.cost(read[1], written) if prices.known else None,
        "example": {"model": teacher["model"], **left[0][0].body()} if left else None,
    }


def dry_run_text(result: DryRun) -> str:
    """The result for people, the example last."""
    fewest, most = result["requests"]
    lines = [
        f"{result['task']}: {result['prompts']} prompts for {result['teacher']['model']}, "
        f"{result['answered_by_the_store']} of them answered by stored replies",
        f"    requests: {fewest:,} to {most:,}; nothing was sent",
        f"    tokens: about {result['prompt_tokens'][0]:,} to {result['prompt_tokens'][1]:,} in, "
        f"at most {result['completion_tokens_at_most']:,} out",
    ]
    if result["cost_at_most"] is not None:
        lines.append(f"    cost: at most {result['cost_at_most']:.2f}")
    if result["example"]:
        example = json.dumps(result["example"], ensure_ascii=False, indent=1)
        lines += ["    the first request:", *(f"        {line}" for line in example.split("\n"))]
    return "\n".join(lines)


def _left(generation: DataGeneration, path: Path, teacher: ModelId) -> list[tuple[Request, int]]:
    """The next request of every exchange that the store cannot finish, and how many requests it can answer."""
    if path.is_file():
        with ReplyStore(path) as store:
            states = [next_request(exchange, store, teacher) for exchange in generation.exchanges]
    else:
        states = [next_request(exchange, None, teacher) for exchange in generation.exchanges]
    return [(request, answered) for request, answered in states if request]
