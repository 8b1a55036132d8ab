"""The ``configs`` at the head of a hub repository's ``README.md``: which files belong to which split."""

from __future__ import annotations

import os
from pathlib import Path

from sdft_cli.data.split_names import Ambiguous, resolved, split_of_name
from sdft_cli.errors import UsageError
from sdft_cli.types import Json


def data_files(folder: Path) -> dict[str, str | Ambiguous | None] | None:
    """The split of every file of the only configuration of ``folder``, by path within it; None if there is none.

    A configuration without ``data_files`` has those under its ``data_dir``; None too if it names neither. Raises
    `UsageError` for several configurations, of which one must be chosen.
    """
    configs = _configs(folder)
    if len(configs) > 1:
        raise several(str(folder), [str(config.get("config_name")) for config in configs])
    config = configs[0] if configs else {}
    place = str(config.get("data_dir") or "")
    if not (place or "data_files" in config):
        return None
    patterns = _patterns(config["data_files"]) if "data_files" in config else {"": ["**"]}
    files = {
        name: split
        for split, some in zip(_splits(list(patterns)), patterns.values(), strict=True)
        for pattern in some
        for name in _matching(folder, place, pattern)
    }
    if not files:
        raise UsageError(f"{folder / 'README.md'} names files that are not here", "fetch them, or name the files")
    return files


def several(name: str, configs: list[str]) -> UsageError:
    """The refusal of a dataset with several configurations, ``configs``."""
    listed = ", ".join(configs[:12]) + (f", … ({len(configs)} in all)" if len(configs) > 12 else "")
    return UsageError(
        f"{name} has several configurations: {listed}", f"choose one: --source TASK=hf:{name}:{configs[0]}"
    )


def _configs(folder: Path) -> list[dict[str, Json]]:
    card = folder / "README.md"
    if not card.is_file():
        return []
    with card.open("rb") as stream:
        if stream.readline(8).strip() != b"---":
            return []
        head = stream.read(1_000_000).decode("utf-8", "replace").partition("\n---")[0]
    import yaml

    try:
        said = yaml.safe_load(head)
    except yaml.YAMLError:
        return []  # a card that is broken describes nothing
    configs = said.get("configs") if isinstance(said, dict) else None
    return [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []


def _patterns(value: Json) -> dict[str, list[str]]:
    """Patterns by split: the forms that `datasets` accepts (text, a list of texts, or of ``split`` and ``path``)."""
    if isinstance(value, dict):
        return {str(split): _listed(paths) for split, paths in value.items()}
    entries = value if isinstance(value, list) else [value]
    if all(isinstance(entry, dict) for entry in entries):
        return {str(entry.get("split", "train")): _listed(entry.get("path", [])) for entry in entries}
    return {"train": [str(entry) for entry in entries]}


def _listed(paths: Json) -> list[str]:
    return [str(path) for path in paths] if isinstance(paths, list) else [str(paths)]


def _matching(folder: Path, data_dir: str, pattern: str) -> list[str]:
    from fsspec.implementations.local import LocalFileSystem  # the globbing of the hub's loader

    base = (folder / data_dir).resolve()
    found = LocalFileSystem().glob(os.path.join(base, pattern))
    return [os.path.relpath(path, folder.resolve()).replace(os.sep, "/") for path in found if os.path.isfile(path)]


def _splits(names: list[str]) -> list[str | Ambiguous | None]:
    """The split of each name in a configuration."""
    found: list[str | Ambiguous | None] = []
    for name in names:
        try:
            found.append(split_of_name(name))
        except Ambiguous as error:
            found.append(error)
    return [split if isinstance(split, Ambiguous) else resolved(split, "test" in found) for split in found]
