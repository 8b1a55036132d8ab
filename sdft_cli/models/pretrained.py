"""Models loaded by location: a folder, a hub id, or an adapter folder on its base."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads are far slower on shared cores

import torch

from sdft_cli.config.adapter_settings import base_bits
from sdft_cli.config.recipe import Lora, Runtime
from sdft_cli.errors import UsageError
from sdft_cli.models import adapters, devices, quantization, rope, scoring, weights
from sdft_cli.models.base_models import Base, base_of
from sdft_cli.models.chat import Chat
from sdft_cli.models.context_window import window_of
from sdft_cli.models.policy import Policy, ends_of, list_end_of_turn
from sdft_cli.models.protocols import CausalLM, ModelConfig, PeftModel, Tokenizer


def load(location: str, runtime: Runtime, lora: Lora | None = None, bits: int | None = None) -> Policy:
    """The model at ``location`` on its device, with a trainable adapter where ``location`` or ``lora`` asks for one.

    Its linear layers are held in ``bits`` (4 or 16); where that is None, as ``lora`` says, or else as an adapter's base
    was when it was trained.
    Raises `UsageError` for a model that cannot be loaded whole, or not be scored right (`scoring`).
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # the only progress bar on the screen is ours
    quantization.quiet()
    devices.set_threads(runtime.threads)
    device, dtype = placement(runtime)
    _say_once(devices.slowness(device, dtype))
    if device.type == "cuda":
        # cuDNN makes a plan for every new length, hence for every sampled token; torch prefers it since 2.11
        torch.backends.cuda.enable_cudnn_sdp(False)
    chat, base = load_chat(location), base_of(location)
    bits = bits or (lora.bits if lora and lora.rank else base_bits(location))
    core, left_out = weights.read(
        location, base, load_config(location), weights.Form(dtype, runtime.attention, bits, device)
    )
    if four_bits := quantization.is_four_bit(core):
        _say_once(quantization.prepare(core, location, dtype))
    policy = Policy(core, chat, location, device, peft=adapters.attach(core, location, lora))
    list_end_of_turn(core, chat)
    policy.model.to(device)
    policy.model.eval()  # dropout off everywhere: sampler and trainer must be the same model
    rope.forget_lengths(core)
    _check_vocabulary(policy)
    try:
        policy.scoring = scoring.examine(core, runtime.attention)._replace(left_out=left_out, four_bits=four_bits)
    except scoring.Unsupported as error:
        raise UsageError(f"{location}: {error}", error.hint) from error
    return policy


def _check_vocabulary(policy: Policy) -> None:
    """Every id that the tokenizer can give has an embedding."""
    rows = policy.core.get_input_embeddings().weight.shape[0]
    largest = max(policy.chat.tokenizer.get_vocab().values(), default=0)
    if largest >= rows:
        raise UsageError(
            f"{policy.name}: the tokenizer has ids up to {largest}, the model embeddings for {rows}",
            "use the tokenizer that belongs to the model, or resize its embeddings",
        )


def load_config(location: str) -> ModelConfig:
    """The model's config, without its weights."""
    from transformers import AutoConfig

    base, revision = base_of(location)
    config: ModelConfig = weights.explained(
        location,
        lambda: AutoConfig.from_pretrained(base, revision=revision or "main", trust_remote_code=False),
    )
    return config


def shapes(location: str, lora: Lora) -> tuple[CausalLM, PeftModel | None]:
    """The model and its adapter as `load` makes them, without the numbers: every tensor is on the meta device."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # saving is tried with them
    core = weights.shaped(location, load_config(location))
    with torch.device("meta"):
        return core, adapters.attach_untrained(core, location, lora)


def set_generation_config(core: CausalLM, location: str) -> None:
    """Give ``core`` the generation config that `load` gives it; without a file, it keeps what it has."""
    from transformers import GenerationConfig

    base, revision = base_of(location)

    def read() -> None:
        with contextlib.suppress(OSError):
            core.generation_config = GenerationConfig.from_pretrained(base, revision=revision or "main")

    weights.explained(location, read)


def load_chat(location: str) -> Chat:
    """The tokenizer, with the model's window: no weights, which is enough for preflight checks."""
    from transformers import AutoTokenizer

    own = (Path(location) / "tokenizer_config.json").is_file()
    folder, revision = Base(location) if own else base_of(location)
    tokenizer: Tokenizer = weights.explained(
        location,
        lambda: AutoTokenizer.from_pretrained(folder, revision=revision or "main", trust_remote_code=False),
    )
    if len(tokenizer.get_vocab()) <= len(tokenizer.get_added_vocab()):  # made of nothing where its files are missing
        raise UsageError(f"{location}: the tokenizer has no vocabulary", "add the model's tokenizer files")
    config = load_config(location)
    chat = Chat(tokenizer, window=window_of(config))
    chat.notes += _end_notes(location, chat, config)
    return chat


def _end_notes(location: str, chat: Chat, config: ModelConfig) -> list[str]:
    """What is to be said where nothing but the chat template names the token that ends an assistant's turn."""
    from transformers import GenerationConfig

    base, revision = base_of(location)
    try:
        ends = ends_of(GenerationConfig.from_pretrained(base, revision=revision or "main"))
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
    """The device and the precision of a model: ``auto`` is bf16 on a GPU where there is one, else fp32 on the CPU.

    Raises `UsageError` for a device that is not there.
    """
    device = devices.find(runtime.device)
    automatic = torch.bfloat16 if device.type == "cuda" else torch.float32
    return device, {"auto": automatic, "bfloat16": torch.bfloat16, "float32": torch.float32}[runtime.dtype]


@functools.cache
def _say_once(note: str) -> None:
    if note:
        print(f"note: {note}", file=sys.stderr)
