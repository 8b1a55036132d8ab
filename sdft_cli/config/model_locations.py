"""Where a model is: a folder, a hub id or the embedded one; and the settings that come with it."""

from __future__ import annotations

import os
from pathlib import Path

from sdft_cli.config.toml_tables import Layer, read_toml
from sdft_cli.errors import UsageError

EMBEDDED = Path(__file__).parents[1] / "micro" / "model"
#: The file that makes a folder an adapter.
ADAPTER = "adapter_config.json"


def locate(name: str) -> str:
    """The folder or hub id to load: ``name``, or the embedded model's folder when it is empty or ``micro``.

    A folder's path is absolute: what is recorded of it is read from other folders.
    """
    if name in ("", "micro"):
        return str(EMBEDDED)
    path = Path(name).expanduser()
    if path.is_dir():
        if not any((path / f).is_file() for f in ("config.json", "adapter_config.json")):
            raise UsageError(f"{name} is not a model folder: it has no config.json", "name a folder or a hub id")
        return os.path.abspath(path)  # a symbolic link keeps its name
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"no model folder at {name}", "name a folder with config.json, or a hub id such as org/model")
    return name


def absolute(name: str) -> str:
    """``name``, with the path of a folder made absolute; a hub id and ``micro`` stay as they are."""
    folder = Path(name).expanduser()
    return os.path.abspath(folder) if name not in ("", "micro") and folder.is_dir() else name


def defaults(location: str) -> Layer:
    """Settings that suit this model: ``sdft.toml`` beside its weights, if there is one."""
    path = Path(location) / "sdft.toml"
    return read_toml(path) if path.is_file() else {}


def is_adapter(location: str) -> bool:
    """Whether the folder holds an adapter (LoRA) and not a whole model."""
    return (Path(location) / ADAPTER).is_file()
