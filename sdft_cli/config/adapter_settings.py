"""What an adapter's folder says of it, as the ``lora`` section of a recipe: such a model is trained as it is.

Read from ``adapter_config.json``, which `peft` writes; its weights are not looked at here.
"""

from __future__ import annotations

import json
from pathlib import Path

from sdft_cli.config import json_files
from sdft_cli.config.compute_sections import Lora
from sdft_cli.config.model_locations import ADAPTER, BASE_RECORD, is_adapter
from sdft_cli.config.recipe import build
from sdft_cli.config.toml_tables import Layer
from sdft_cli.errors import UsageError
from sdft_cli.types import Json

#: Every linear layer but the output head, by `peft`'s word.
ALL_LINEAR = "all-linear"
MERGE_FIRST = "merge it into its base first (merge_and_unload of peft), and name the merged model"


def adapter_config(location: str) -> Layer:
    """The settings of the adapter in this folder; `UsageError` for a broken file, and for what is no LoRA adapter."""
    path = Path(location) / ADAPTER
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "restore the file, or name another model") from error
    if not isinstance(config, dict):
        raise UsageError(f"{path} does not describe an adapter", "restore the file, or name another model")
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise UsageError(f"{location} is an adapter of the kind {kind}; only LoRA adapters can be loaded", MERGE_FIRST)
    return config


def lora_of(location: str) -> Lora:
    """The adapter in this folder as a section of a recipe; `UsageError` where a setting is unusable.

    `peft`'s own default stands for what is missing.
    """
    config, where = adapter_config(location), f"{location}/{ADAPTER}"
    names = [config.get(key) or [] for key in ("target_modules", "target_parameters")]
    if not all(isinstance(some, list | str) for some in names):
        raise UsageError(f"{where}: target_modules must be names or a pattern, not {names[0]!r}", "restore the file")
    layers, parameters = names
    section = {
        "rank": config.get("r", 8),
        "alpha": config.get("lora_alpha", 8),
        "dropout": config.get("lora_dropout", 0.0),
        "target_modules": layers if isinstance(layers, str) and layers else sorted({*layers, *parameters}),
    }
    lora = build([{"lora": section}], where).lora
    if not lora.rank:
        raise UsageError(f"{where}: an adapter's rank r is 1 or more, not {lora.rank}", "restore the file")
    return lora


def base_bits(location: str) -> int:
    """The bits in which the base was held when the adapter in this folder was trained: 4, or 16, which also stands for
    any other model and for another tool's adapter."""
    path = Path(location) / BASE_RECORD
    if not is_adapter(location) or not json_files.exists(path):
        return 16
    return 4 if json_files.read(path, dict[str, Json], "restore the file, or remove it").get("bits") == 4 else 16


def check_same(lora: Lora, location: str) -> None:
    """Refuse settings that are not those of the adapter at ``location``.

    ``all-linear`` passes: which layers those are is known when the model is there (`models.adapters`). So do any names
    for an adapter on a mixture's experts, which `peft` writes under other names than it takes.
    """
    own, experts = lora_of(location), bool(adapter_config(location).get("target_parameters"))
    for key in ("rank", "alpha", "dropout", "target_modules"):
        asked, has = getattr(lora, key), getattr(own, key)
        layers = key == "target_modules"
        if asked == has or (layers and (experts or asked == ALL_LINEAR or _names(asked) == _names(has))):
            continue
        raise UsageError(
            f"lora.{key}={_text(asked)}: the model is an adapter with {key} {_text(has)}, and is trained as it is",
            f"leave lora.{key} out; or {MERGE_FIRST}",
        )


def _names(targets: tuple[str, ...] | str) -> set[str] | str:
    return targets if isinstance(targets, str) else set(targets)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
