"""The ``configs`` at the head of a hub repository's ``README.md``: which files belong to which split."""

from __future__ import annotations

import glob
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
    from huggingface_hub import metadata_load

    try:
        said = metadata_load(card)
    except Exception:  # a card with broken YAML raises whatever its reader met, and describes nothing
        return []
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
    found = glob.glob(os.path.join(data_dir, pattern), root_dir=folder, recursive=True)
    return [Path(os.path.normpath(path)).as_posix() for path in found if (folder / path).is_file()]


def _splits(names: list[str]) -> list[str | Ambiguous | None]:
    """The split of each name in a configuration."""
    found: list[str | Ambiguous | None] = []
    for name in names:
        try:
            found.append(split_of_name(name))
        except Ambiguous as error:
            found.append(error)
    return [split if isinstance(split, Ambiguous) else resolved(split, "test" in found) for split in found]
