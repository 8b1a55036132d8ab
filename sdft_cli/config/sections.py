"""Sections of a recipe: how weights are learnt and who teaches. The others stand in `recipe`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Teacher(Section):
    """phi <- phi + a (theta - phi) every k steps: frozen a=0, live a=1 k=1, EMA 0<a<1. One word picks a kind.

    ``storage`` of an average, under full fine-tuning in bf16 (an adapter is small, and fp32 weights are their own
    average): ``device``, a copy to compute with and the average in fp32, six bytes a parameter; ``cpu``, the same
    numbers with the average in the host's memory, two bytes; ``half``, what the average lags behind in bf16, two bytes
    and a layer made when it is passed (``compressed_ema.py``); ``auto``, ``cpu`` where ``device`` does not fit.
    """

    start: Literal["student", "base", "before"] = "student"
    update_rate: float = Field(0.01, ge=0, le=1)
    update_every: int = Field(1, ge=1)
    storage: Literal["auto", "device", "half", "cpu"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _kind(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in TEACHER_KINDS:
            raise ValueError(f"unknown teacher {value!r}: one of {', '.join(TEACHER_KINDS)}")
        return TEACHER_KINDS[value]


TEACHER_KINDS: dict[str, dict[str, Any]] = {
    "frozen": {"update_rate": 0.0},
    "live": {"update_rate": 1.0},
    "ema": {"update_rate": 0.01},
    "periodic": {"update_rate": 1.0, "update_every": 20},
}


class Train(Section):
    """Optimization. ``max_steps`` overrides ``epochs``; batch counts completions; each is used ``updates`` times.

    ``keep_checkpoints`` of a stage can be resumed from. ``best``: the checkpoint with the best validation accuracy is
    kept beside the last one, or the stage ends with it (``use``). ``stop_if_prior_drops``: how far, from the base
    model, the prior suite may fall in probes before a stage ends with the last step that kept it.

    ``master``: how bf16 weights learn, by a copy in fp32 or by rounding each update stochastically (``optimizer.py``).
    ``optimizer``: ``adamw8bit`` holds its moments in a byte each; it needs bitsandbytes (the extra ``memory``).
    ``micro_batch_tokens``: padded tokens that are computed at once; ``auto`` is 16384, or less where less fits, and a
    step that runs out of memory is made again with half as many. ``gradient_checkpointing``: ``auto`` turns it on
    where not even one row fits without.
    """

    lr: float = Field(1e-5, gt=0)
    batch: int = Field(32, ge=1)
    updates: int = Field(1, ge=1)
    epochs: float = Field(1, gt=0)
    max_steps: int | None = Field(None, ge=1)
    warmup_steps: int = Field(10, ge=0)
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    grad_norm: float = Field(1.0, gt=0)
    master: Literal["fp32", "stochastic"] = "fp32"
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    micro_batch_tokens: int | Literal["auto"] = "auto"
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    max_prompt_tokens: int = Field(8192, ge=1)
    checkpoint_every: int = Field(100, ge=0)
    keep_checkpoints: int = Field(1, ge=1)
    best: Literal["off", "keep", "use"] = "keep"
    stop_if_prior_drops: float | None = Field(None, ge=0, lt=1)
    eval_every: int = Field(50, ge=0)
    eval_limit: int = Field(64, ge=1)
    on_bad_row: Literal["error", "drop"] = "error"

    @property
    def micro_batch_budget(self) -> int:
        """Padded tokens of a micro-batch, where memory does not limit them."""
        return 16384 if self.micro_batch_tokens == "auto" else self.micro_batch_tokens

    @field_validator("micro_batch_tokens", mode="before")
    @classmethod
    def _tokens(cls, value: Any) -> Any:
        if value != "auto" and (not isinstance(value, int) or value < 1):
            raise ValueError("must be a number of tokens from 1, or 'auto'")
        return value


class PhaseTrain(Section):
    """What a second phase has of its own; None keeps the first phase's value."""

    lr: float | None = Field(None, gt=0)
    batch: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0)
    max_steps: int | None = Field(None, ge=1)
    warmup_steps: int | None = Field(None, ge=0)
