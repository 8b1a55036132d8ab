"""Digests that say whether two things are the same: a model's weights, test rows, a chat template, a grader's code."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft_cli.config.locations import is_adapter, locate
from sdft_cli.grading import task_rules
from sdft_cli.types import Example

if TYPE_CHECKING:
    from sdft_cli.models.chat import Chat

#: Characters of a digest: 64 bits, of which no two things here will ever agree by chance.
LENGTH = 16
#: The files of a model's folder that loading it may read.
_READ = (".safetensors", ".bin", ".pt", ".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")


def of(value: Any) -> str:
    """Of anything that is JSON, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def of_examples(examples: Iterable[Example]) -> str:
    """Of what a model and a grader get to see of test rows. Where a row came from (``meta.row``) is not part of it."""
    rows = [[e.id, e.prompt, e.context, e.answer, {k: v for k, v in e.meta.items() if k != "row"}] for e in examples]
    return of(rows)


def of_chat(chat: Chat) -> str:
    """Of the template by which messages become text. Its source, for what it renders may hold today's date."""
    return of(chat.tokenizer.chat_template)


def of_grader(grade: Callable[..., Any]) -> str:
    """Of the files that hold a grader's code and the shared rules: a mended grader must not get old scores."""
    while isinstance(grade, functools.partial):
        grade = grade.func
    module = sys.modules.get(inspect.unwrap(grade).__module__)
    files = {task_rules.__file__, getattr(module, "__file__", None) or task_rules.__file__}
    return of([hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in sorted(files)])


def of_weights(location: str) -> str | None:
    """Of a model folder: every file that loading may read, and an adapter's base. None for a model that is not a folder
    (a hub id's files lie elsewhere, and change)."""
    folder = Path(location)
    if not folder.is_dir():
        return None
    found = []
    for file in sorted(f for f in folder.iterdir() if f.suffix in _READ and f.is_file()):
        with file.open("rb") as content:
            found.append([file.name, hashlib.file_digest(content, "sha256").hexdigest()])
    if not is_adapter(location):
        return of(found)
    base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    below = of_weights(locate(base)) or base
    return of([found, below])
