"""A task for tests with a teacher: $SUMS questions, graded by the last word of a completion."""

import os
from pathlib import Path

from sdft_cli.grading import task_rules
from sdft_cli.types import Example, Prepared, Score, Task


def row(i: int, **more) -> Example:
    return Example(f"sums-{i}", [{"role": "user", "content": f"what is {i} ?"}], **{"answer": str(i), **more})


def prepare(paths, options) -> Prepared:
    count = int(os.environ.get("SUMS", "20"))
    return Prepared({"train": [row(i) for i in range(count)], "test": [row(count)]}, source="made up")


def grade(completion: str, example: Example) -> Score:
    return task_rules.exact(completion.split()[-1], example.answer)


TASK = Task("sums", "say a number again", prepare, grade, max_new_tokens=32, needs_source=False)


def prepare_in_child(data: str, url: str, count: int) -> None:
    """What a process does that a test kills: `prepare` with a teacher at ``url``."""
    from sdft_cli import plugins
    from sdft_cli.commands.prepare import prepare as run_prepare
    from sdft_cli.llm import retries
    from sdft_cli.llm.types import TeacherOptions
    from sdft_cli.types import PrepareOptions

    os.environ["SUMS"] = str(count)
    retries.FIRST_BACKOFF = 0.01
    plugins.load_file(__file__)
    teacher = TeacherOptions("m", url, timeout=1.5, concurrency=16)
    run_prepare(["sums"], {}, Path(data), PrepareOptions(), teacher=teacher)
