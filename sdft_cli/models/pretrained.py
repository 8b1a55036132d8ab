"""Load, wrap, run and save models: the only place that knows how a `transformers` model is built."""

from __future__ import annotations

import copy
import gc
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads are far slower on shared cores

import torch
from torch import Tensor, nn

from sdft_cli.config.locations import is_adapter, locate
from sdft_cli.config.recipe import Lora, Runtime
from sdft_cli.errors import SdftError, UsageError
from sdft_cli.losses.fused import Head
from sdft_cli.models import packing
from sdft_cli.models.batching import Inputs
from sdft_cli.models.chat import Chat

if TYPE_CHECKING:
    from transformers import PretrainedConfig

STUDENT, TEACHER = "default", "teacher"  # adapter names; peft calls the first one "default"


@dataclass
class Policy:
    """A model ready to sample and train: ``model`` may be wrapped by peft, ``core`` is what lies inside.

    ``packed``: sequences may be laid end to end for scoring (`packing`).
    """

    model: nn.Module
    chat: Chat
    name: str
    device: torch.device
    lora: bool = False
    packed: bool = False

    @property
    def core(self) -> nn.Module:
        return self.model.get_base_model() if self.lora else self.model  # type: ignore[operator]


def load_config(location: str) -> PretrainedConfig:
    """The model's config without its weights."""
    from transformers import AutoConfig

    return _friendly(location, lambda: AutoConfig.from_pretrained(_base_of(location)))


def version_of(location: str) -> str | None:
    """The commit of a hub id's files; None where there is none (a folder)."""
    return getattr(load_config(location), "_commit_hash", None)


def load_chat(location: str) -> Chat:
    """The tokenizer alone: enough for preflight checks."""
    from transformers import AutoTokenizer

    here = location if (Path(location) / "tokenizer_config.json").is_file() else _base_of(location)
    return Chat(_friendly(location, lambda: AutoTokenizer.from_pretrained(here)))


def load(location: str, runtime: Runtime, lora: Lora | None = None) -> Policy:
    """The model at ``location`` on its device; an adapter folder is loaded on its base, trainable."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is the only bar on the screen
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    device, dtype = placement(runtime)
    if device.type == "cuda":
        # it makes a plan for every new length, so for every token that is sampled; torch 2.11 began to prefer it
        torch.backends.cuda.enable_cudnn_sdp(False)
    base = _base_of(location)
    model = _friendly(location, lambda: AutoModelForCausalLM.from_pretrained(base, dtype=dtype))
    wrapped = _adapt(model, location, lora)
    policy = Policy(wrapped.to(device), load_chat(location), location, device, lora=wrapped is not model)
    policy.model.eval()  # dropout off everywhere: the sampler and the trainer must be the same model
    check_head(policy)
    policy.packed = packing.enable(policy.core)
    return policy


def _adapt(model: Any, location: str, lora: Lora | None) -> Any:
    if is_adapter(location):
        from peft import PeftModel

        return PeftModel.from_pretrained(model, location, is_trainable=True)
    if lora is None or not lora.rank:
        return model
    from peft import LoraConfig, get_peft_model

    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def adapt_empty(model: Any, location: str, lora: Lora) -> Any:
    """``model``, made without weights, with the adapter that `load` would train: only its shapes count."""
    if not is_adapter(location):
        return _adapt(model, location, lora)
    from peft import PeftConfig, get_peft_model

    return get_peft_model(model, PeftConfig.from_pretrained(location))


def _base_of(location: str) -> str:
    if not is_adapter(location):
        return location
    import json

    return locate(json.loads((Path(location) / "adapter_config.json").read_text())["base_model_name_or_path"])


def _friendly(location: str, action: Any) -> Any:
    try:
        return action()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"cannot load the model {location!r}: {reason}", "check the path or hub id, and HF_TOKEN"
        ) from (error)


def placement(runtime: Runtime) -> tuple[torch.device, torch.dtype]:
    """Where a model is put, and in which precision."""
    device = _device(runtime.device)
    return device, _dtype(runtime.dtype, device)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)


def head(policy: Policy, model: nn.Module | None = None) -> Head:
    """The output head; its tensors are the live parameters. ``model`` replaces the student (a teacher copy)."""
    core: Any = policy.core if model is None else model
    module, config = core.get_output_embeddings(), core.config
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)
    return Head(module.weight, getattr(module, "bias", None), float(scale), None if cap is None else float(cap))


def hidden_states(policy: Policy, inputs: Inputs, model: nn.Module | None = None) -> Tensor:
    """Final hidden states at the inputs' loss positions, [N, H]. ``model`` replaces the student (a teacher copy)."""
    core = policy.core if model is None else model
    bounds = packing.bounds(inputs.lengths, policy.device) if inputs.lengths else {}
    out = core.get_decoder()(input_ids=inputs.ids_BL, use_cache=False, **bounds)  # type: ignore[operator]
    return out.last_hidden_state[inputs.rows_N, inputs.columns_N]


@torch.no_grad()
def check_head(policy: Policy) -> None:
    """Losses are computed from hidden states and `head`: refuse a model whose logits are not what these make."""
    ids_BL = torch.arange(1, 5, device=policy.device)[None]
    hidden_LH = policy.core.get_decoder()(input_ids=ids_BL, use_cache=False).last_hidden_state[0]  # type: ignore[operator]
    ours_LV = head(policy).logits(hidden_LH)
    theirs_LV = policy.core(input_ids=ids_BL, use_cache=False).logits[0].float()
    if theirs_LV.isnan().any():
        raise UsageError(f"{policy.name}: the model's logits are NaN", "its weights are broken, use others")
    if not torch.allclose(ours_LV, theirs_LV, atol=1e-2 + 1e-2 * float(theirs_LV.abs().max())):
        raise UsageError(
            f"{policy.name}: this model does more to its logits than head, scale and soft-cap",
            "such heads are not supported; use another model",
        )


def checkpoint(policy: Policy, on: bool) -> None:
    """Whether a layer's activations are thrown away and made again in the backward pass (gradient checkpointing)."""
    core: Any = policy.core
    if on:
        if not core.supports_gradient_checkpointing:
            raise UsageError(f"{policy.name}: no gradient checkpointing", "set train.gradient_checkpointing=off")
        core.gradient_checkpointing_enable({"use_reentrant": False})
        core.disable_input_require_grads()  # only the reentrant kind needs them
    elif core.is_gradient_checkpointing:
        core.gradient_checkpointing_disable()


def training(policy: Policy, dropout: bool) -> None:
    """Be ready for a pass with a backward pass. Without ``dropout`` the model stays as for evaluation, but for the flag
    of the layers themselves (their parts keep theirs): `transformers` checkpoints only where it is set."""
    policy.model.train(dropout)
    for module in policy.core.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True


def save(policy: Policy, folder: Path) -> None:
    """Weights and tokenizer in plain Hugging Face format (an adapter folder under LoRA)."""
    kwargs = {"selected_adapters": [STUDENT]} if policy.lora else {}
    policy.model.save_pretrained(folder, **kwargs)  # type: ignore[operator]
    policy.chat.tokenizer.save_pretrained(folder)


def twin(policy: Policy) -> Policy:
    """The same model with weights of its own where they can move; frozen ones are shared."""
    frozen = {id(p): p for p in policy.model.parameters() if not p.requires_grad}
    return replace(policy, model=copy.deepcopy(policy.model, frozen).requires_grad_(False))


def release(device: torch.device) -> None:
    """Give back what nothing holds any more, after running out of memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@torch.no_grad()
def follow(other: Policy, policy: Policy) -> None:
    """Give a `twin` the weights of ``policy``."""
    theirs = dict(policy.model.named_parameters())
    for name, param in other.model.named_parameters():
        if param is not theirs[name]:
            param.copy_(theirs[name])


def trainable(policy: Policy) -> int:
    """Count of trainable parameters; raises if there is none."""
    count = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
    if not count:
        raise SdftError("the model has no trainable parameter", "check lora.target_modules")
    return count


def stop_ids(policy: Policy) -> list[int]:
    """Every id that ends a completion: the tokenizer's and those of the model's generation config."""
    config = getattr(policy.core, "generation_config", None)
    more = getattr(config, "eos_token_id", None) or []
    return sorted({policy.chat.eos_id, *(more if isinstance(more, list) else [more])})
