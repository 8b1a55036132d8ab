"""What a checkpoint's model folder is written with, so that every tool can load it; and whether that will work."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft_cli.errors import UsageError

if TYPE_CHECKING:
    from sdft_cli.models.chat import Chat
    from sdft_cli.models.protocols import CausalLM, GenerationConfig, PeftModel

#: Settings of a generation config that matter only where tokens are drawn.
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")


def save_core(core: CausalLM, folder: Path, **how: object) -> None:
    """The model in plain Hugging Face format, its generation config as `savable` makes it."""
    config = getattr(core, "generation_config", None)
    if config is not None:
        core.generation_config = savable(config)[0]
    try:
        core.save_pretrained(folder, **how)
    finally:
        if config is not None:
            core.generation_config = config
    _readable(folder)


def save_adapter(peft: PeftModel, name: str, folder: Path) -> None:
    """One adapter in the format of `peft`."""
    peft.save_pretrained(folder, selected_adapters=[name])
    _readable(folder)


def _readable(folder: Path) -> None:
    """Weights as readable as the files beside them: safetensors makes its files for their owner alone."""
    mode = next(path.stat().st_mode for path in sorted(folder.glob("*config.json")))
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)


def savable(config: GenerationConfig) -> tuple[GenerationConfig, list[str]]:
    """The generation config as `transformers` agrees to save it, and what is different, such as ``do_sample=true``.

    It loads contradictory settings with a warning and refuses to save them. Where there are settings for drawing
    tokens, ``do_sample`` is set, so that they keep their meaning; a setting that is refused even so is left out.
    """
    from transformers import GenerationConfig as Settings

    if _is_valid(config):
        return config, []
    given: dict[str, Any] = config.to_diff_dict()
    saved, changes = Settings(), []
    if not given.get("do_sample") and any(given.get(name) is not None for name in _SAMPLING):
        given["do_sample"] = True
        changes.append("do_sample=true")
    for name in sorted(given, key=lambda name: name != "do_sample"):
        tried = copy.deepcopy(saved)
        setattr(tried, name, given[name])
        if _is_valid(tried):
            saved = tried
        else:
            changes.append(f"without {name}={given[name]}")
    return saved, changes


def _is_valid(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def check(core: CausalLM, chat: Chat, peft: PeftModel | None, name: str, whole: bool) -> list[str]:
    """Save everything but the weights once, and throw it away; returns what is to be said of it. ``whole``: the model
    itself is saved, at the latest when the stage ends, and not its adapter alone.

    Raises `UsageError` where a checkpoint could not be saved: better before training than after.
    """
    with tempfile.TemporaryDirectory(prefix="sdft-save-") as scratch:
        folder = Path(scratch)
        try:
            if whole:
                save_core(core, folder, state_dict={})
            if peft is not None:
                for adapter in peft.peft_config.values():
                    copy.deepcopy(adapter).save_pretrained(folder)
            chat.tokenizer.save_pretrained(folder)
        except Exception as error:  # a library's complaint about its own files, whatever its kind
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UsageError(
                f"{name}: the model can be loaded but not saved: {lines[0][:300]}",
                "mend its files, or use another model",
            ) from error
    config = getattr(core, "generation_config", None)
    changes = savable(config)[1] if whole and config is not None else []
    if not changes:
        return []
    return [f"{name}: its generation_config.json contradicts itself, and is saved with changes: {', '.join(changes)}"]
