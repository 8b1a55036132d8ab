"""The base model that an adapter or a run starts from: recorded when it is saved, found again when it is loaded.

An adapter's ``adapter_config.json`` names its base for every tool: a hub id with its commit, or a folder by its
absolute path. Beside it lies ``base_model.json`` with what that file has no room for: a digest of the base's weights,
and the way from the adapter's folder to the base, for folders that were moved together. A base that has moved alone is
named with ``--base``; a model with other weights is refused.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NotRequired

from sdft_cli.config import gguf_files, json_files
from sdft_cli.config.adapter_settings import adapter_config
from sdft_cli.config.model_locations import ADAPTER, BASE_RECORD, EMBEDDED, is_adapter, locate
from sdft_cli.errors import UsageError
from sdft_cli.runs.files import write_whole

FILE = BASE_RECORD
HINT = "name the folder where it is now with --base (train, eval, probe)"
#: Files that hold a model's weights.
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "adapter_model*")
#: Folders named with ``--base`` in this process.
_named: list[str] = []


class Base(NamedTuple):
    """A folder, or a hub id with the commit of its files where that is known."""

    location: str
    revision: str | None = None


class _Stored(json_files.Record):
    """A `Record` as it is on disk."""

    location: str
    revision: str | None
    relative: str | None
    weights: str | None
    embedded: bool
    bits: NotRequired[int | None]


class Record(NamedTuple):
    """What is kept of a base: ``relative`` leads there from the folder with the record, ``weights`` is a digest,
    ``embedded`` is true of the embedded model, which every installation has at another place, and an adapter's ``bits``
    say how its base was held in training."""

    location: str
    revision: str | None = None
    relative: str | None = None
    weights: str | None = None
    embedded: bool = False
    bits: int | None = None

    @classmethod
    def of(cls, location: str, revision: str | None, folder: Path) -> Record:
        """Of the model at ``location``, to be kept in ``folder``."""
        if not Path(location).is_dir():
            return cls(location, revision)
        absolute = os.path.abspath(location)
        relative = os.path.relpath(absolute, os.path.abspath(folder))
        return cls(absolute, None, relative, weights_digest(absolute), Path(absolute) == EMBEDDED)

    @classmethod
    def read(cls, folder: str | Path) -> Record | None:
        """The one in ``folder``; None where there is none, as in another tool's folder."""
        path = Path(folder) / FILE
        if not json_files.exists(path):
            return None
        kept = json_files.read(path, _Stored, "restore the file, or remove it")
        return cls(**{name: kept[name] for name in cls._fields if name in kept})

    def write(self, folder: Path) -> None:
        write_whole(folder / FILE, json.dumps(self._asdict(), indent=2) + "\n")


def sign(folder: Path, base: str, revision: str | None, bits: int) -> None:
    """Complete what `peft` has written to an adapter's ``folder``: where its base is, by a path that is valid from any
    folder, and the layers in one order, because `peft` keeps them as a set."""
    record, path = Record.of(base, revision, folder)._replace(bits=bits), folder / ADAPTER
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": record.location, "revision": record.revision}
    for key in ("target_modules", "target_parameters"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    record.write(folder)


def sign_run(folder: Path, model: str, revision: str | None) -> None:
    """Record the run's first model, a folder or a hub id, in the run's ``folder``; once, and again where it moved."""
    record = Record.read(folder)
    location = os.path.abspath(model) if Path(model).is_dir() else model
    if record is None or record.location != location:
        Record.of(model, revision, folder).write(folder)


def name_base(location: Path | str | None) -> None:
    """``--base``: look there as well for bases that are not where they were. None: nowhere else."""
    _named[:] = [] if location is None else [locate(str(location))]


def name_base_of(location: str | None, base: str | None, compares: bool) -> None:
    """``--base`` of an evaluation: where the base of the adapter at ``location`` is now, or a model to compare with.

    Raises `UsageError` where it is neither: another model than the adapter's base, with no comparison to make.
    """
    name_base(None)
    if base is None:
        return
    if location is None or not is_adapter(location) or not Path(locate(base)).is_dir():
        if not compares:
            raise UsageError(f"--base {base}: nothing is compared with a base", "add --also kl, or leave out --base")
        return
    record = Record.read(location)
    if compares and record and record.weights and weights_digest(locate(base)) != record.weights:
        return
    name_base(base)
    if not compares:
        _check_used(location, _named[0])


def base_of(location: str) -> Base:
    """The model itself: what an adapter folder was trained on; any other location is its own.

    Raises `UsageError` where it is not to be found, or only a model with other weights is.
    """
    if not is_adapter(location):
        return Base(location)
    config, record = adapter_config(location), Record.read(location)
    if record and record.embedded:
        return Base(str(EMBEDDED))
    recorded = config.get("base_model_name_or_path") or (record.location if record else "")
    was_folder = record is not None and record.weights is not None
    if recorded and _is_model(recorded):
        return Base(locate(recorded))
    if found := find(record, Path(location)):
        return Base(found)
    if recorded and not was_folder and not _is_path(recorded):
        return Base(locate(recorded), config.get("revision"))
    raise UsageError(_not_there(location, recorded), f"{HINT}, or correct {location}/{ADAPTER}")


def find(record: Record | None, folder: Path) -> str | None:
    """Where the base of ``record``, which lies in ``folder``, is by now: beside it as before, or where ``--base`` says.

    Raises `UsageError` where ``--base`` names a model with other weights.
    """
    if record and record.relative:
        beside = os.path.normpath(os.path.join(os.path.abspath(folder), record.relative))
        if _is_model(beside) and weights_digest(beside) == record.weights:
            return beside
    for place in _named:
        check_named(place, record.weights if record else None)
        return place
    return None


def check_named(place: str, weights: str | None) -> None:
    """Refuse the model at ``place`` where its weights are not those with the digest ``weights``; None: unknown."""
    if weights and weights_digest(place) != weights:
        raise UsageError(
            f"--base {place}: its weights are not those of the model that was trained on",
            "name the folder that the same model is in now",
        )


def move(model: str, base: Path | None, run: Path | None) -> str:
    """Where a run's first ``model`` is by now, given ``--base``.

    ``run`` is the folder of a run that is gone on with, which holds its record; None for a new run, whose ``model`` may
    be an adapter without its base. Raises `UsageError` where ``--base`` names another model, or nothing is missing.
    """
    name_base(base)
    there = model in ("", "micro") or _is_model(model)
    if there or run is None:
        if base is not None:
            _check_used(model, _named[0])
        return model
    record = Record.read(run)
    if found := find(record, run):
        return found
    if _is_path(model) or (record and record.weights):
        raise UsageError(f"the model that {run} started from is not at {model} any more", HINT)
    return model


def _check_used(model: str, base: str) -> None:
    """``--base`` for a model that is at its place: of an adapter it may name the base again, and nothing else."""
    if not is_adapter(locate(model)):
        raise UsageError(f"--base {base}: {model or 'micro'} is no adapter, and nothing has moved", "leave out --base")
    there = base_of(locate(model)).location
    check_named(base, weights_digest(there) if Path(there).is_dir() else None)


def weights_digest(folder: str) -> str | None:
    """Of the files with a model's weights; None for a hub id, and for a folder without any."""
    files = tuple((str(file), *_stamp(file)) for file in _weight_files(Path(folder)))
    return _digest(files) if files else None


@functools.lru_cache
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    """Kept for files that have not changed: reading a large model takes as long as loading it."""
    digest = hashlib.sha256()
    for name, *_ in files:
        with open(name, "rb") as content:
            digest.update(Path(name).name.encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def _weight_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(file for pattern in _WEIGHTS for file in folder.glob(pattern))


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _is_model(location: str) -> bool:
    """Whether a folder or a GGUF file with a model is there."""
    place = Path(location).expanduser()
    return (place / "config.json").is_file() or is_adapter(location) or gguf_files.find(place) is not None


def _is_path(location: str) -> bool:
    """Whether it can be a folder alone, and no hub id."""
    return location.startswith((".", "/", "~")) or location.count("/") > 1 or "\\" in location


def _not_there(location: str, recorded: str) -> str:
    if not recorded:
        return f"{location}/{ADAPTER} names no base model"
    return f"the base model of the adapter {location} is not at {recorded} any more"
