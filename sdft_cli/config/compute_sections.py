"""Sections of a recipe about what a run computes with: adapter, engine, device."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from sdft_cli.config.sections import Section

#: Up to this many parameters, sampling on a CPU multiplies by a copy of the fp32 weights that is laid out for few rows.
COPIED_PARAMETERS = 1 << 30


class Lora(Section):
    """Adapter training (LoRA) instead of full fine-tuning.

    A model that is an adapter already is trained as what it is: its own rank, alpha, dropout and layers are put here.
    """

    rank: int = Field(0, ge=0, le=2**16, description="Rank of the adapter; 0 trains all weights.")
    alpha: float = Field(32.0, gt=0, description="The adapter's output is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: tuple[str, ...] | str = Field(
        "all-linear",
        description="The layers that get an adapter: the ends of their names, or a pattern; all but the output head.",
    )
    bits: Literal[4, 16] = Field(
        16,
        description="Bits of a weight of the base: 4 while its adapter is trained (QLoRA); 16, as runtime.dtype says.",
    )
    merge: Literal["never", "stage"] = Field(
        "never",
        description="stage: add the adapter to the model's weights when a stage ends; the next gets a new one.",
    )

    @property
    def measured_bits(self) -> Literal[4, 16]:
        """The bits in which a run's models are measured: as they are trained; those that a merged stage leaves, and the
        base that they are compared with, as they are on disk."""
        return self.bits if self.merge == "never" else 16

    @field_validator("target_modules")
    @classmethod
    def _targets(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        """A text without a pattern's signs is a list of names: peft would match it with whole names alone."""
        if isinstance(value, str):
            names = [name.strip() for name in value.split(",")]
            if all(re.fullmatch(r"[\w.]+", name) for name in names):
                return tuple(names)
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a pattern: {error}") from error
        if not value or not all(value):
            raise ValueError("names no layer; all-linear means every linear layer but the output head")
        return value


class EngineSettings(Section):
    """What samples completions, and the resources it may use.

    ``vllm`` runs in this process, ``vllm-server`` beside it. After every update their log-probs are compared with the
    trainer's (``engines/_weight_check.py``).
    """

    name: str = Field("transformers", description="transformers, vllm, vllm-server, or a plug-in's engine.")
    max_batch: int = Field(256, ge=1, description="Completions sampled at once.")
    prefetch: int = Field(
        0, ge=0, description="Batches sampled ahead while earlier ones train; 0 samples each with the current weights."
    )
    memory_share: float = Field(0.3, gt=0, lt=1, description="vllm: share of the GPU's memory.")
    sleep: bool = Field(False, description="vllm: release that memory while the model trains.")
    base_url: str | None = Field(None, description="vllm-server: where it is, such as http://localhost:8000.")
    weights_folder: str | None = Field(
        None, description="vllm-server: a shared folder to pass weights through; one in memory here if not set."
    )
    sync_tolerance: float | None = Field(
        None,
        gt=0,
        description="Largest log-prob difference from the trainer, in nats; by precision if not set.",
    )


class Runtime(Section):
    """Device and precision."""

    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Precision of the weights; auto is bfloat16 on a GPU, else float32."
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …")
    threads: int | None = Field(None, ge=1, description="CPU threads; one per core that may be used if not set.")
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] = Field(
        "auto",
        description="auto is the fastest that gives the results of eager, for which every model is written.",
    )
