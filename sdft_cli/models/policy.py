"""The policy: a loaded model with its tokenizer, as engines sample from it and trainers move it.

Shapes: B sequences, L tokens, N loss positions, H hidden, V vocabulary.
"""

from __future__ import annotations

import copy
import gc
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sdft_cli.errors import UsageError
from sdft_cli.losses.fused import Head
from sdft_cli.models import packing
from sdft_cli.models.adapters import STUDENT
from sdft_cli.models.batching import Inputs
from sdft_cli.models.chat import Chat
from sdft_cli.models.protocols import CausalLM, PeftModel


def ends_of(config: object) -> list[int]:
    """The ids that a generation config (or a model's config) names as ends."""
    given = getattr(config, "eos_token_id", None)
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


@dataclass
class Policy:
    """``core`` is the model itself, ``peft`` the same model with adapters (None under full fine-tuning).

    ``name`` is the location it was loaded from. ``packed``: sequences may be laid end to end for scoring (`packing`).
    """

    core: CausalLM
    chat: Chat
    name: str
    device: torch.device
    peft: PeftModel | None = None
    packed: bool = False

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
        return next(self.core.parameters()).dtype

    @property
    def stop_ids(self) -> list[int]:
        """Every id that ends a completion: the chat template's end of a turn, the tokenizer's end of a text, and those
        of the model's generation config."""
        return sorted({self.chat.end_id, self.chat.eos_id, *ends_of(getattr(self.core, "generation_config", None))})

    def list_end_of_turn(self) -> None:
        """Add the chat template's end of a turn to the generation config where it is missing: whatever generates with
        this model, or with what is saved of it, then stops there too."""
        config = getattr(self.core, "generation_config", None)
        if config is not None and self.chat.end_id not in (ends := ends_of(config)):
            config.eos_token_id = [*ends, self.chat.end_id] if ends else self.chat.end_id

    # forward ----------------------------------------------------------------------------------------------------

    def hidden_states(self, inputs: Inputs, model: CausalLM | None = None) -> Tensor:
        """Final hidden states [N, H] at the inputs' loss positions, by ``model`` instead of the student if given."""
        core = self.core if model is None else model
        decode = partial(core.get_decoder(), input_ids=inputs.ids_BL, use_cache=False)
        output = decode(**packing.bounds(inputs.lengths, self.device)) if inputs.lengths else decode()
        return output.last_hidden_state[inputs.rows_N, inputs.columns_N]

    def head(self, model: CausalLM | None = None) -> Head:
        """The output head, of ``model`` instead of the student if given; its tensors are the live parameters."""
        core = self.core if model is None else model
        module, config = core.get_output_embeddings(), core.config
        scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
        cap = getattr(config, "final_logit_softcapping", None)
        return Head(module.weight, getattr(module, "bias", None), float(scale), None if cap is None else float(cap))

    @torch.no_grad()
    def check_head(self) -> None:
        """Losses are computed from hidden states and `head`: refuse a model whose logits differ from theirs."""
        ids_BL = torch.arange(1, 5, device=self.device)[None]
        hidden_LH = self.core.get_decoder()(input_ids=ids_BL, use_cache=False).last_hidden_state[0]
        ours_LV = self.head().logits(hidden_LH)
        theirs_LV = self.core(input_ids=ids_BL, use_cache=False).logits[0].float()
        if theirs_LV.isnan().any():
            raise UsageError(f"{self.name}: the model's logits are NaN", "its weights are broken: use another model")
        if not torch.allclose(ours_LV, theirs_LV, atol=1e-2 + 1e-2 * float(theirs_LV.abs().max())):
            raise UsageError(
                f"{self.name}: the model's logits are more than output head, scale and soft cap",
                "such output heads are not supported: use another model",
            )

    # training ---------------------------------------------------------------------------------------------------

    def gradient_checkpointing(self, on: bool) -> None:
        """Whether a layer's activations are dropped after its forward pass and recomputed in the backward pass."""
        if on:
            if not self.core.supports_gradient_checkpointing:
                raise UsageError(
                    f"{self.name}: the model has no gradient checkpointing", "set train.gradient_checkpointing=off"
                )
            self.core.gradient_checkpointing_enable({"use_reentrant": False})
            self.core.disable_input_require_grads()  # only reentrant checkpointing needs them
        elif self.core.is_gradient_checkpointing:
            self.core.gradient_checkpointing_disable()

    def train_mode(self, dropout: bool) -> None:
        """Prepare for a forward pass with a backward pass.

        Without ``dropout`` the model stays in evaluation mode, but for the layers' own flag (not their parts'), without
        which `transformers` does no gradient checkpointing.
        """
        self.model.train(dropout)
        for module in self.core.modules():
            if getattr(module, "gradient_checkpointing", False):
                module.training = True

    def save(self, folder: Path) -> None:
        """Weights and tokenizer in plain Hugging Face format; under LoRA, the student's adapter alone."""
        self.save_weights(folder)
        self.chat.tokenizer.save_pretrained(folder)

    def save_weights(self, folder: Path) -> None:
        """As `save`, without the tokenizer."""
        if self.peft is None:
            self.core.save_pretrained(folder)
        else:
            self.peft.save_pretrained(folder, selected_adapters=[STUDENT])

    # copies -----------------------------------------------------------------------------------------------------

    def sampler_copy(self) -> Policy:
        """The same model with trainable weights of its own, to sample from while these are trained; frozen weights are
        shared."""
        frozen = {id(p): p for p in self.model.parameters() if not p.requires_grad}
        core, peft = copy.deepcopy((self.core, self.peft), frozen)
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
