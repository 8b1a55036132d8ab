"""Datasets of the Hugging Face hub as local JSONL: ``hf:ORG/NAME``, ``hf:ORG/NAME:CONFIG@SPLIT``, or ``hf:FOLDER``.

The rows of each split are written to a JSONL file in a temporary folder, so that every task reads them like any other
source. Up to `LARGE` bytes, `datasets` downloads and caches the whole dataset; a larger one is streamed, and only these
files are kept. The manifest identifies the rows by the hash of the files. Needs the network, except for a local folder.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sdft_cli.errors import UsageError
from sdft_cli.types import Json

PREFIX = "hf:"
#: Bytes; a dataset is streamed if the hub says it is larger.
LARGE = 1_000_000_000
_SOURCE = re.compile(r"hf:(?P<name>[^:@]+)(?::(?P<config>[^:@]+))?(?:@(?P<split>[^:@]+(?::[^:@]*)?))?")

#: The files, folders and hub datasets given for each task.
Sources = dict[str, list[Path]]
HubRow = Mapping[str, Json]


@dataclass(frozen=True)
class HubDataset:
    """A dataset id (or a local folder that `datasets` can read), with its configuration and split."""

    name: str
    config: str | None = None
    split: str | None = None

    @property
    def label(self) -> str:
        """Its name in manifests and messages, without the folders of this machine."""
        name = Path(self.name).name if Path(self.name).is_dir() else self.name.replace("/", "--")
        return PREFIX + "--".join(filter(None, (name, self.config)))


@contextmanager
def downloaded(sources: Sources) -> Iterator[Sources]:
    """``sources`` with a folder of JSONL files in place of each hub dataset; the files are deleted after the block."""
    hosted = [path for paths in sources.values() for path in paths if is_hub_dataset(path)]
    if not hosted:
        yield sources
        return
    with tempfile.TemporaryDirectory(prefix="sdft-hub-") as scratch:
        at = {path: fetch(parse(path), Path(scratch) / str(i)) for i, path in enumerate(dict.fromkeys(hosted))}
        yield {task: [at.get(path, path) for path in paths] for task, paths in sources.items()}


def is_hub_dataset(path: Path) -> bool:
    return str(path).startswith(PREFIX)


def parse(path: Path) -> HubDataset:
    """``hf:NAME[:CONFIG][@SPLIT]``; `UsageError` for anything else."""
    if not (match := _SOURCE.fullmatch(str(path))):
        raise UsageError(
            f"{path}: not a dataset of the hub", "write hf:ORG/NAME, hf:ORG/NAME:CONFIG or hf:ORG/NAME@SPLIT"
        )
    return HubDataset(match["name"], match["config"], match["split"])


def fetch(dataset: HubDataset, folder: Path) -> Path:
    """Write the rows of ``dataset`` to ``<folder>/<label>/<split>.jsonl``; returns the inner folder."""
    place = folder / dataset.label
    place.mkdir(parents=True)
    for split, rows in _splits(dataset).items():
        name = re.split(r"\W", split)[0]  # train[:100] is a part of train
        with (place / f"{name}.jsonl").open("w", encoding="utf-8") as out:
            for row in _readable(dataset, rows):
                out.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    return place


def _splits(dataset: HubDataset) -> Mapping[str, Iterable[HubRow]]:
    """The dataset's splits; their rows have not been read yet."""
    import datasets

    datasets.disable_progress_bars()
    try:
        info = datasets.load_dataset_builder(dataset.name, dataset.config).info
        size = max(info.download_size or 0, info.dataset_size or 0)
        loaded = datasets.load_dataset(dataset.name, dataset.config, split=dataset.split, streaming=size > LARGE)
    except Exception as error:  # the id, the network or the files may be wrong, and each raises something else
        raise _cannot_load(dataset, error) from error
    return dict(loaded) if isinstance(loaded, dict) else {dataset.split or "train": loaded}


def _readable(dataset: HubDataset, rows: Iterable[HubRow]) -> Iterator[HubRow]:
    try:
        yield from rows
    except Exception as error:  # a streamed dataset reaches the network and the files only now
        raise _cannot_load(dataset, error) from error


def _cannot_load(dataset: HubDataset, error: Exception) -> UsageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return UsageError(
        f"cannot load {dataset.name!r} with `datasets`: {reason}",
        "check id, configuration (hf:ORG/NAME:CONFIG), split (@SPLIT) and network; or download it and name the files",
    )
