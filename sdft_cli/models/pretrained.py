"""Models loaded by location: a folder, a hub id, or an adapter folder on its base."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads are far slower on shared cores

import torch

from sdft_cli.config.recipe import Lora, Runtime
from sdft_cli.errors import UsageError
from sdft_cli.models import adapters, packing
from sdft_cli.models.chat import Chat
from sdft_cli.models.context_window import window_of
from sdft_cli.models.policy import Policy, ends_of
from sdft_cli.models.protocols import CausalLM, ModelConfig, Tokenizer

T = TypeVar("T")


def load(location: str, runtime: Runtime, lora: Lora | None = None) -> Policy:
    """The model at ``location`` on its device, with a trainable adapter where ``location`` or ``lora`` asks for one.

    Raises `UsageError` for a model that cannot be loaded, or whose output head is not supported.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # the only progress bar on the screen is ours
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    device, dtype = placement(runtime)
    if device.type == "cuda":
        # cuDNN makes a plan for every new length, hence for every sampled token; torch prefers it since 2.11
        torch.backends.cuda.enable_cudnn_sdp(False)
    base = adapters.base_of(location)
    core: CausalLM = _explained(location, lambda: AutoModelForCausalLM.from_pretrained(base, dtype=dtype))
    policy = Policy(core, load_chat(location), location, device, peft=adapters.attach(core, location, lora))
    policy.list_end_of_turn()
    policy.model.to(device)
    policy.model.eval()  # dropout off everywhere: sampler and trainer must be the same model
    policy.check_head()
    policy.packed = packing.enable(policy.core)
    return policy


def load_config(location: str) -> ModelConfig:
    """The model's config, without its weights."""
    from transformers import AutoConfig

    config: ModelConfig = _explained(location, lambda: AutoConfig.from_pretrained(adapters.base_of(location)))
    return config


def load_chat(location: str) -> Chat:
    """The tokenizer, with the model's window: no weights, which is enough for preflight checks."""
    from transformers import AutoTokenizer

    folder = location if (Path(location) / "tokenizer_config.json").is_file() else adapters.base_of(location)
    tokenizer: Tokenizer = _explained(location, lambda: AutoTokenizer.from_pretrained(folder))
    config = load_config(location)
    chat = Chat(tokenizer, window=window_of(config))
    chat.notes += _end_notes(location, chat, config)
    return chat


def _end_notes(location: str, chat: Chat, config: ModelConfig) -> list[str]:
    """What is to be said where nothing but the chat template names the token that ends an assistant's turn."""
    from transformers import GenerationConfig

    try:
        ends = ends_of(GenerationConfig.from_pretrained(adapters.base_of(location)))
    except (OSError, ValueError):  # there need not be one
        ends = ends_of(config.get_text_config())
    if chat.end_id in (*ends, chat.tokenizer.eos_token_id):
        return []
    end = chat.tokenizer.decode([chat.end_id], skip_special_tokens=False)
    return [
        f"the chat template ends a turn with {end!r}, which neither the tokenizer nor generation_config.json names: "
        "completions end there, and the generation_config.json of a saved model will name it"
    ]


def version_of(location: str) -> str | None:
    """The commit of a hub id's files; None for a folder."""
    return getattr(load_config(location), "_commit_hash", None)


def placement(runtime: Runtime) -> tuple[torch.device, torch.dtype]:
    """The device and the precision of a model: ``auto`` is bf16 on a GPU where there is one, else fp32 on the CPU."""
    device = torch.device(_automatic_device() if runtime.device == "auto" else runtime.device)
    automatic = torch.bfloat16 if device.type == "cuda" else torch.float32
    return device, {"auto": automatic, "bfloat16": torch.bfloat16, "float32": torch.float32}[runtime.dtype]


def _automatic_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _explained(location: str, load: Callable[[], T]) -> T:
    """What ``load`` returns; its errors as `UsageError` in one line."""
    try:
        return load()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"cannot load the model {location!r}: {reason}", "check the path or hub id, and HF_TOKEN"
        ) from error
