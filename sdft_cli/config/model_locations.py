"""Where a model is: a folder, a GGUF file, a hub id, or one of two by name (``micro``, the embedded one, and
``smollm2``); and the settings that come with it."""

from __future__ import annotations

import os
from pathlib import Path

from sdft_cli.config import gguf_files, smollm2
from sdft_cli.config.toml_tables import Layer, read_toml
from sdft_cli.errors import UsageError

EMBEDDED = Path(__file__).parents[1] / "micro" / "model"
#: The file that makes a folder an adapter.
ADAPTER = "adapter_config.json"
#: Beside it: which base the adapter was trained on, and how (`models.base_models`).
BASE_RECORD = "base_model.json"


def locate(name: str) -> str:
    """The folder or hub id to load: ``name``, or the embedded model's folder when it is empty or ``micro``.

    A folder's path is absolute: what is recorded of it is read from other folders. A GGUF file, or a folder that holds
    one, stands for the folder that it is converted into (`gguf_files`). ``smollm2`` is fetched where it is not on this
    machine (`smollm2.find`), unless a folder or file of that name is here.
    """
    if name in ("", "micro"):
        return str(EMBEDDED)
    name = _named(name)
    path = Path(name).expanduser()
    if path.is_dir() and any((path / f).is_file() for f in ("config.json", ADAPTER)):
        return os.path.abspath(path)  # a symbolic link keeps its name
    if file := gguf_files.find(path):
        return gguf_files.plain_folder(file)
    if path.is_dir():
        raise UsageError(
            f"{name} is not a model folder: it has neither a config.json nor a .gguf file", "name a folder or a hub id"
        )
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(f"no model folder at {name}", "name a folder with config.json, or a hub id such as org/model")
    return name


def absolute(name: str) -> str:
    """``name``, with the path of a folder or file made absolute; a hub id and ``micro`` stay as they are. Of
    ``smollm2`` it is the path where it was found: a run goes on with the same weights, wherever they came from."""
    name = _named(name)
    path = Path(name).expanduser()
    return os.path.abspath(path) if name not in ("", "micro") and path.exists() else name


def _named(name: str) -> str:
    """``name``, or the path of the model that it stands for."""
    return smollm2.find() if name == smollm2.NAME and not Path(name).exists() else name


def defaults(location: str) -> Layer:
    """Settings that suit this model: ``sdft.toml`` beside its weights, if there is one."""
    path = Path(location) / "sdft.toml"
    return read_toml(path) if path.is_file() else {}


def is_adapter(location: str) -> bool:
    """Whether the folder holds an adapter (LoRA) and not a whole model."""
    return (Path(location) / ADAPTER).is_file()
