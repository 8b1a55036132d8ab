"""``--source hub``: a task's public data from the Hugging Face hub, by the ids that the task knows (`types.HubSource`).

The rows become files in a temporary folder, like those of any dataset of the hub (`data.hub`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sdft_cli import plugins
from sdft_cli.data import hub
from sdft_cli.data.hub import Sources
from sdft_cli.errors import UsageError
from sdft_cli.types import HubSource, Json, Task

#: What ``--source hub`` puts in the place of a task's sources.
OF_THE_TASK = Path("hub:")


class LocalSources(NamedTuple):
    """Sources on this machine, the licences of what came from the hub, and notes on it, by task."""

    sources: Sources
    licences: dict[str, str]
    notes: dict[str, list[str]]


def named(tasks: Sequence[str], sources: Sources) -> Sources:
    """``sources`` with the hub for every task that has data there and no source; `UsageError` if there is none."""
    known = [name for name in dict.fromkeys(tasks) if name not in sources and _source(name)]
    if not known:
        have = [name for name in plugins.TASKS.names() if _source(name)]
        raise UsageError(
            f"--source hub: of {', '.join(tasks) or 'no task'}, none has data on the hub that sdft knows",
            f"these have: {', '.join(have)}; for another dataset write --source TASK=hf:ORG/NAME",
        )
    return {**sources, **{name: [OF_THE_TASK] for name in known}}


@contextmanager
def downloaded(sources: Sources) -> Iterator[LocalSources]:
    """``sources`` with files on this machine in place of datasets of the hub; they are deleted after the block."""
    expanded = {task: _expanded(task, paths) for task, paths in sources.items()}
    with hub.downloaded(expanded) as local, tempfile.TemporaryDirectory(prefix="sdft-hub-") as scratch:
        result = LocalSources(dict(local), {}, {})
        for task, paths in sources.items():
            if paths == [OF_THE_TASK] and (source := _source(task)):
                result.licences[task] = source.licence
                folder = Path(scratch) / task
                result.sources[task], result.notes[task] = _arranged(source, local[task], folder)
        yield result


def _expanded(task: str, paths: list[Path]) -> list[Path]:
    source = _source(task) if paths == [OF_THE_TASK] else None
    return [Path(dataset) for dataset in source.datasets] if source else paths


def _source(name: str) -> HubSource | None:
    task: Task | None = plugins.TASKS.get(name) if name in plugins.TASKS.names() else None
    return task.hub if task else None


def _arranged(source: HubSource, folders: list[Path], scratch: Path) -> tuple[list[Path], list[str]]:
    """The folders or files of what the task takes, and what it says of the rest."""
    if source.arrange is None:
        return folders, []
    rows, notes = source.arrange([row for folder in folders for row in _rows(folder)])
    place = scratch / "+".join(folder.name for folder in folders)
    place.mkdir(parents=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (place / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    return [place], notes


def _rows(folder: Path) -> Iterator[dict[str, Json]]:
    """All rows of a dataset, as `hub.fetch` has written them."""
    for file in sorted(folder.glob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)
