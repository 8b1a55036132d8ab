"""The policy: a loaded model with its tokenizer, as engines sample from it and trainers move it.

Shapes: B sequences, L tokens, N loss positions, H hidden, V vocabulary.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sdft_cli.errors import UsageError
from sdft_cli.losses.fused import Head
from sdft_cli.models import base_models, quantization, saving, scoring
from sdft_cli.models.adapters import STUDENT
from sdft_cli.models.batching import Inputs, Layout
from sdft_cli.models.chat import Chat
from sdft_cli.models.protocols import CausalLM, PeftModel
from sdft_cli.models.scoring import Scoring


def ends_of(config: object) -> list[int]:
    """The ids that a generation config (or a model's config) names as ends."""
    given = getattr(config, "eos_token_id", None)
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


def list_end_of_turn(core: CausalLM, chat: Chat) -> None:
    """Add the chat template's end of a turn to the generation config where it is missing: whatever generates with
    this model, or with what is saved of it, then stops there too."""
    config = getattr(core, "generation_config", None)
    if config is not None and chat.end_id not in (ends := ends_of(config)):
        config.eos_token_id = [*ends, chat.end_id] if ends else chat.end_id


@dataclass
class Policy:
    """``core`` is the model itself, ``peft`` the same model with adapters (None under full fine-tuning).

    ``name`` is the location it was loaded from. ``scoring`` is what its rows are scored with.
    """

    core: CausalLM
    chat: Chat
    name: str
    device: torch.device
    peft: PeftModel | None = None
    scoring: Scoring = field(default_factory=Scoring)

    @property
    def layout(self) -> Layout:
        """How rows share a forward pass when they are scored."""
        return self.scoring.layout

    @property
    def model(self) -> CausalLM:
        """What is sampled and trained: with adapters where there are any."""
        return self.core if self.peft is None else self.peft

    @property
    def lora(self) -> bool:
        """Whether an adapter is trained, and not the model's own weights."""
        return self.peft is not None

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the model's own weights (adapters may be wider)."""
        return next(p for p in self.core.parameters() if p.is_floating_point()).dtype

    @property
    def stop_ids(self) -> list[int]:
        """Every id that ends a completion: the chat template's end of a turn, the tokenizer's end of a text, and those
        of the model's generation config."""
        return sorted({self.chat.end_id, self.chat.eos_id, *ends_of(getattr(self.core, "generation_config", None))})

    # forward ----------------------------------------------------------------------------------------------------

    def hidden_states(self, inputs: Inputs, model: CausalLM | None = None) -> Tensor:
        """Final hidden states [N, H] at the inputs' loss positions, by ``model`` instead of the student if given."""
        core = self.core if model is None else model
        hidden_BLH = scoring.states(core, self.scoring.through, inputs.ids_BL, inputs.lengths)
        return hidden_BLH[inputs.rows_N, inputs.columns_N]

    def head(self, model: CausalLM | None = None) -> Head:
        """The output head, of ``model`` instead of the student if given; its tensors are the live parameters."""
        return scoring.head(self.core if model is None else model, self.scoring.head)

    # training ---------------------------------------------------------------------------------------------------

    def gradient_checkpointing(self, on: bool, model: CausalLM | None = None) -> None:
        """Whether a layer's activations are dropped after its forward pass and recomputed in the backward pass; of
        ``model`` instead of the student if given."""
        core = self.core if model is None else model
        if on:
            if not core.supports_gradient_checkpointing:
                raise UsageError(
                    f"{self.name}: the model has no gradient checkpointing", "set train.gradient_checkpointing=off"
                )
            core.gradient_checkpointing_enable({"use_reentrant": False})
            for module in core.modules():
                if recomputes(module):
                    module.__dict__["_gradient_checkpointing_func"] = partial(_compute_again, module)
            core.disable_input_require_grads()  # only reentrant checkpointing needs them
        elif core.is_gradient_checkpointing:
            core.gradient_checkpointing_disable()

    def train_mode(self, dropout: bool, model: nn.Module | None = None) -> None:
        """Prepare for a forward pass with a backward pass, of ``model`` instead of the student if given.

        The model stays in evaluation mode: its own dropout, dropped layers and noise of routers are off, so that what
        is trained is what is sampled. ``dropout`` is that of adapters. Layers that recompute their activations carry
        the flag of training, for which `transformers` asks, until they compute (`gradient_checkpointing`).
        """
        trained = self.model if model is None else model
        trained.eval()
        for name, module in trained.named_modules():
            module.training = (dropout and ".lora_dropout." in name) or recomputes(module)

    def save(self, folder: Path) -> None:
        """Weights and tokenizer in plain Hugging Face format; under LoRA, the student's adapter alone, which names its
        base by a place that is valid from any folder."""
        self.save_weights(folder)
        if self.peft is not None:
            config = self.core.config
            bits = 4 if quantization.is_four_bit(self.core) else 16
            base_models.sign(folder, config._name_or_path, getattr(config, "_commit_hash", None), bits)
        self.chat.tokenizer.save_pretrained(folder)

    def save_weights(self, folder: Path) -> None:
        """As `save`, without the tokenizer."""
        if self.peft is None:
            saving.save_core(self.core, folder)
        else:
            saving.save_adapter(self.peft, STUDENT, folder)

    # copies -----------------------------------------------------------------------------------------------------

    def sampler_copy(self) -> Policy:
        """The same model with trainable weights of its own, to sample from while these are trained; frozen weights are
        shared."""
        frozen = [p for p in self.model.parameters() if not p.requires_grad]
        shared = {id(each): each for each in (*frozen, *quantization.states(self.core))}
        core, peft = copy.deepcopy((self.core, self.peft), shared)
        copied = replace(self, core=core, peft=peft)
        copied.model.requires_grad_(False)
        return copied

    @torch.no_grad()
    def copy_weights(self, source: Policy) -> None:
        """Take over the weights of ``source``, whose `sampler_copy` this is."""
        theirs = dict(source.model.named_parameters())
        for name, param in self.model.named_parameters():
            if param is not theirs[name]:
                param.copy_(theirs[name])

    def release_memory(self) -> None:
        """Return freed memory to the device, after running out of it."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def is_layer(module: nn.Module) -> bool:
    """Whether ``module`` is one of the layers that make up a model, as transformers marks them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return isinstance(module, GradientCheckpointingLayer)


def recomputes(module: nn.Module) -> bool:
    """Whether ``module`` is a layer whose activations are computed again in the backward pass."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return isinstance(module, GradientCheckpointingLayer) and bool(module.gradient_checkpointing)


def _compute_again(layer: nn.Module, forward: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """``forward`` of ``layer`` as in evaluation: some layers read their own flag and would drop activations out."""

    def evaluate(*inputs: Tensor) -> Tensor:
        before, layer.training = layer.training, False
        try:
            return forward(*inputs)
        finally:
            layer.training = before

    result: Tensor = checkpoint(evaluate, *inputs, use_reentrant=False)
    return result
