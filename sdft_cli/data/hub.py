"""Datasets of the Hugging Face hub as local JSONL: ``hf:ORG/NAME``, ``hf:ORG/NAME:CONFIG@SPLIT``, or ``hf:FOLDER``.

The rows of each split are written to a JSONL file in a temporary folder, so that every task reads them like any other
source. Up to `LARGE` bytes, `datasets` downloads and caches the whole dataset; a larger one is streamed, and only these
files are kept. The manifest identifies the rows by the hash of the files. Needs the network, except for a local folder.

Labels are written by name, and rows that hold an image or a sound are marked, so that the reader leaves them out by
name. A dataset with several configurations is refused unless one is named: they are other data.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdft_cli.data import cells
from sdft_cli.data.hub_cards import several
from sdft_cli.data.hub_features import with_label_names
from sdft_cli.errors import UsageError
from sdft_cli.types import Json

PREFIX = "hf:"
#: Bytes; a dataset is streamed if the hub says it is larger.
LARGE = 1_000_000_000
_BATCH = 1000
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
        part_of = re.sub(r"\[[^]]*\]", "", split)  # train[:100] is a part of train
        name = re.sub(r"[^\w.-]", "_", part_of)
        with (place / f"{name}.jsonl").open("w", encoding="utf-8") as out:
            for row in _readable(dataset, rows):
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return place


def _splits(dataset: HubDataset) -> Mapping[str, Iterable[HubRow]]:
    """The dataset's splits; their rows have not been read yet."""
    import datasets

    datasets.disable_progress_bars()
    try:
        configs = [] if dataset.config else datasets.get_dataset_config_names(dataset.name)
        if len(configs) > 1:
            raise several(dataset.name, configs)
        info = datasets.load_dataset_builder(dataset.name, dataset.config).info
        size = max(info.download_size or 0, info.dataset_size or 0)
        loaded = datasets.load_dataset(dataset.name, dataset.config, split=dataset.split, streaming=size > LARGE)
    except UsageError:
        raise
    except Exception as error:  # the id, the network or the files may be wrong, and each raises something else
        raise _cannot_load(dataset, error) from error
    splits = dict(loaded) if isinstance(loaded, dict) else {dataset.split or "train": loaded}
    return {split: _rows(rows) for split, rows in splits.items()}


def _rows(rows: Any) -> Iterator[HubRow]:
    """Rows as JSON, with labels by name; images and sounds are not decoded, and only their paths are written."""
    features = rows.features.to_dict() if rows.features else {}
    for batch in rows.with_format("arrow").iter(_BATCH):
        for row in batch.to_pylist():
            yield {key: _json(value) for key, value in with_label_names(row, features).items()}


def _json(value: Any) -> Json:
    """A cell as JSON; what has no form in text as an object of ``bytes`` and ``path``, which the reader knows."""
    try:
        return cells.plain(value)
    except cells.NotText:
        path = value.get("path") if isinstance(value, dict) else None
        return {"bytes": "not written", "path": path}


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
