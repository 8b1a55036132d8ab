"""Datasets of the Hugging Face hub as local JSONL: ``hf:ORG/NAME``, ``hf:ORG/NAME:CONFIG@SPLIT``, or a local folder.

The rows of each split are written to a file of their own below a temporary folder, so every task reads them like any
other source. Up to `LARGE` bytes `datasets` downloads and caches the whole; beyond that, rows are streamed and nothing
else is kept. What the rows were made of goes into the manifest by their hash. Needs the network, or ``hf:FOLDER``.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdft_cli.errors import UsageError

PREFIX = "hf:"
#: Bytes; a dataset that is larger, by what the hub says of it, is streamed.
LARGE = 1_000_000_000
_SOURCE = re.compile(r"hf:(?P<name>[^:@]+)(?::(?P<config>[^:@]+))?(?:@(?P<split>[^:@]+(?::[^:@]*)?))?")

Sources = dict[str, list[Path]]


@dataclass(frozen=True)
class Hosted:
    """A dataset id (or a local folder that `datasets` can read), and which configuration and split of it."""

    name: str
    config: str | None = None
    split: str | None = None

    @property
    def label(self) -> str:
        """What it is called in manifests and messages; nothing of this machine's layout."""
        name = Path(self.name).name if Path(self.name).is_dir() else self.name.replace("/", "--")
        return PREFIX + "--".join(filter(None, (name, self.config)))


@contextmanager
def local(sources: Sources) -> Iterator[Sources]:
    """``sources`` with a folder of JSONL files for each dataset of the hub, which are gone after the block."""
    hosted = [path for paths in sources.values() for path in paths if is_hosted(path)]
    if not hosted:
        yield sources
        return
    with tempfile.TemporaryDirectory(prefix="sdft-hub-") as scratch:
        at = {path: fetch(parse(path), Path(scratch) / str(i)) for i, path in enumerate(dict.fromkeys(hosted))}
        yield {task: [at.get(path, path) for path in paths] for task, paths in sources.items()}


def is_hosted(path: Path) -> bool:
    return str(path).startswith(PREFIX)


def parse(path: Path) -> Hosted:
    """``hf:NAME[:CONFIG][@SPLIT]``; `UsageError` for anything else."""
    if not (found := _SOURCE.fullmatch(str(path))):
        raise UsageError(
            f"{path}: not a dataset of the hub", "write hf:ORG/NAME, hf:ORG/NAME:CONFIG or hf:ORG/NAME@SPLIT"
        )
    return Hosted(found["name"], found["config"], found["split"])


def fetch(hosted: Hosted, folder: Path) -> Path:
    """The rows of ``hosted`` as ``<folder>/<label>/<split>.jsonl``; returns the inner folder."""
    place = folder / hosted.label
    place.mkdir(parents=True)
    for split, rows in _splits(hosted).items():
        name = re.split(r"\W", split)[0]  # train[:100] are train rows
        with (place / f"{name}.jsonl").open("w", encoding="utf-8") as out:
            for row in _readable(hosted, rows):
                out.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    return place


def _splits(hosted: Hosted) -> dict[str, Any]:
    """The dataset's splits, each an iterable of rows that has not begun."""
    import datasets

    datasets.disable_progress_bars()
    try:
        info = datasets.load_dataset_builder(hosted.name, hosted.config).info
        size = max(info.download_size or 0, info.dataset_size or 0)
        found = datasets.load_dataset(hosted.name, hosted.config, split=hosted.split, streaming=size > LARGE)
    except Exception as error:  # whatever is wrong with the id, the network or the files
        raise _refused(hosted, error) from error
    return dict(found) if isinstance(found, dict) else {hosted.split or "train": found}


def _readable(hosted: Hosted, rows: Any) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except Exception as error:  # a stream meets the network and the files only now
        raise _refused(hosted, error) from error


def _refused(hosted: Hosted, error: Exception) -> UsageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return UsageError(
        f"cannot load {hosted.name!r} by `datasets`: {reason}",
        "check id, configuration (hf:ORG/NAME:CONFIG), split (@SPLIT) and network; or download it and name the files",
    )
