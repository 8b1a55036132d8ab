"""Digests by which two things are known to be equal: a model's weights, test rows, chat templates, graders' code."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sdft_cli.config.adapter_settings import adapter_config
from sdft_cli.config.model_locations import ADAPTER, is_adapter
from sdft_cli.grading import task_rules
from sdft_cli.models import base_models
from sdft_cli.types import Example

if TYPE_CHECKING:
    from sdft_cli.models.chat import Chat

#: Hexadecimal digits of a digest: with 64 bits no two different things will ever agree by chance.
LENGTH = 16
#: Suffixes of the files in a model folder that loading may read.
READ = (".safetensors", ".bin", ".pt", ".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")


def of(value: object) -> str:
    """Of any JSON value, regardless of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def of_examples(examples: Iterable[Example]) -> str:
    """Of everything in test rows that a model or a grader sees; where a row came from (``meta.row``) is left out."""
    return of([_seen_of(e) for e in examples])


def _seen_of(example: Example) -> list[object]:
    """A row without tools has the digest that it had before there were any: stored scores stay valid."""
    meta = {k: v for k, v in example.meta.items() if k != "row"}
    seen = [example.id, example.prompt, example.context, example.answer, meta]
    return [*seen, example.tools] if example.tools else seen


def of_chat(chat: Chat) -> str:
    """Of the chat template's source: the text it renders may contain today's date."""
    return of(chat.tokenizer.chat_template)


def of_grader(grade: Callable[..., object]) -> str:
    """Of the file with the grader's code and all of the shared rules, which read each other: a corrected grader must
    not be given old scores."""
    while isinstance(grade, functools.partial):
        grade = grade.func
    module = sys.modules.get(inspect.unwrap(grade).__module__)
    shared = Path(task_rules.__file__)
    sandbox = shared.parent.parent / "sandbox"  # whose limits decide what passes
    files = {Path(getattr(module, "__file__", None) or shared), *shared.parent.glob("*.py"), *sandbox.glob("*.py")}
    return of([hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)])


def of_weights(location: str) -> str | None:
    """Of a model folder: every file that loading may read, and for an adapter also its base, wherever that is.

    None for a hub id, whose files are elsewhere and may change.
    """
    folder = Path(location)
    if not folder.is_dir():
        return None
    files = []
    adapter = is_adapter(location)
    for file in sorted(f for f in folder.iterdir() if f.suffix in READ and f.is_file()):
        if adapter and file.name in (ADAPTER, base_models.FILE):
            continue  # they name the base by its place
        with file.open("rb") as content:
            files.append([file.name, hashlib.file_digest(content, "sha256").hexdigest()])
    if not adapter:
        return of(files)
    files.append([ADAPTER, of({k: v for k, v in adapter_config(location).items() if k != "base_model_name_or_path"})])
    base = base_models.base_of(location).location
    return of([files, of_weights(base) or base])
