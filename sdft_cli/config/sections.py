"""Sections of a recipe about learning: sampling, views, teacher, reward, optimization.

Every key has a one-line description, from which the reference page is made.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from sdft_cli.errors import shown
from sdft_cli.types import AUTO, NewTokens


class Section(BaseModel):
    """A table of a recipe: unknown keys are errors, numbers are finite, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _of_64_bits(cls, value: object) -> object:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("an integer of more than 64 bits")
        return value


def _new_tokens(value: object) -> object:
    if value not in (None, AUTO) and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"must be a number of tokens from 1, or {AUTO!r}")
    return value


#: The longest completion in tokens; None is the task's own limit, and ``auto`` is as long as demonstrations suggest.
MaxNewTokens = Annotated[NewTokens | None, BeforeValidator(_new_tokens)]


class Sampler(Section):
    """Where completions come from, and how they are drawn.

    Sources: ``student`` samples new completions at every step; ``teacher`` samples once, before the stage, from the
    teacher's view; ``dataset`` uses the demonstrations; ``corpus`` uses raw text, packed into blocks of
    ``max_new_tokens``.
    """

    source: Literal["student", "teacher", "dataset", "corpus"] = Field(
        "student", description="What writes the completions that are trained on."
    )
    n: int = Field(1, ge=1, description="Completions per prompt.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling: keep the smallest set of tokens this likely.")
    top_k: int = Field(0, ge=0, description="Sample among the k most likely tokens; 0 means all.")
    max_new_tokens: MaxNewTokens = Field(
        None,
        description="Longest completion, in tokens; the task's own limit if not set; auto: as long as demonstrations "
        "suggest.",
    )


class Views(Section):
    """What student and teacher see of an example: names of views (``models/views.py``, or a plug-in's)."""

    student: str = Field("prompt", min_length=1, description="The student's view.")
    teacher: str | None = Field(
        None, min_length=1, description="The teacher's view; none for methods without a teacher."
    )
    student_thinking: bool | None = Field(
        None,
        description="Turn a thinking model's thinking on or off in the student's view; its default if not set.",
    )
    teacher_thinking: bool | None = Field(None, description="The same for the teacher's view.")


TEACHER_KINDS: dict[str, dict[str, float | int]] = {
    "frozen": {"update_rate": 0.0},
    "live": {"update_rate": 1.0},
    "ema": {"update_rate": 0.01},
    "periodic": {"update_rate": 1.0, "update_every": 20},
}


class Teacher(Section):
    """The weights phi of the teacher, which follow the student's theta: phi <- phi + a (theta - phi) every k steps.

    a = 0 is a frozen teacher, a = 1 and k = 1 the student itself, 0 < a < 1 an exponential moving average (EMA).
    ``teacher = "frozen"``, ``"live"``, ``"ema"`` or ``"periodic"`` sets both at once.

    ``storage`` matters for an EMA under full fine-tuning in bf16 (an adapter is small, and an fp32 EMA needs no second
    copy): ``device`` keeps a bf16 copy to compute with and the average in fp32, six bytes per parameter; ``cpu`` gives
    the same numbers with the average in host memory, two bytes on the device; ``half`` stores only the difference from
    the student, in bf16, and builds each layer when it is needed (``compressed_ema.py``), two bytes.
    """

    start: Literal["student", "base", "before"] = Field(
        "student",
        description="Initial weights: the student at the start of the phase, the run's base model, or the model before "
        "the stage.",
    )
    update_rate: float = Field(0.01, ge=0, le=1, description="The rate a of the update.")
    update_every: int = Field(1, ge=1, description="Steps k between two updates.")
    storage: Literal["auto", "device", "half", "cpu"] = Field(
        "auto", description="Where an EMA is kept; auto is device, or cpu or half if that does not fit (train.fit)."
    )

    @model_validator(mode="before")
    @classmethod
    def _kind(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value not in TEACHER_KINDS:
            raise ValueError(f"unknown teacher {shown(value)}: one of {', '.join(TEACHER_KINDS)}")
        return TEACHER_KINDS[value]


class Reward(Section):
    """The task's own grade as reward."""

    success: float = Field(0.5, description="Reward from which a completion counts as successful.")
    epsilon: float = Field(1e-6, gt=0, description="Added to the standard deviation that divides advantages.")


class Train(Section):
    """Optimization, checkpoints, and evaluation during training.

    ``master``: how bf16 weights are updated, through a copy in fp32 or by rounding each update stochastically
    (``optimizer.py``). ``adamw8bit`` keeps its moments in one byte each; it needs bitsandbytes (the extra ``memory``).
    A step that runs out of memory is repeated with half as many tokens per micro-batch.

    ``fit`` makes a run fit into the memory that is there: of what is left to ``auto``, it concedes the least
    (``training/fit.py``). A setting that is given is never changed.
    """

    lr: float = Field(1e-5, gt=0, description="Peak learning rate.")
    batch: int = Field(32, ge=1, description="Completions per optimizer step.")
    updates: int = Field(1, ge=1, description="Optimizer steps that each sampled batch is used for.")
    epochs: float = Field(1, gt=0, le=1e6, description="Passes over the training rows.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps per stage; overrides epochs.")
    warmup_steps: int | None = Field(
        None, ge=0, description="Steps of linear warm-up; 10, or half of a shorter stage, if not set."
    )
    schedule: Literal["cosine", "constant", "linear"] = Field("cosine", description="Learning rate after the warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay of the first moment.")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's decay of the second moment.")
    grad_norm: float = Field(1.0, gt=0, description="Clip the gradient to this norm.")
    fit: Literal["auto", "on", "off"] = Field(
        "auto", description="Concede what makes the run fit into memory; auto is on for a GPU, off for a CPU."
    )
    master: Literal["auto", "fp32", "stochastic"] = Field(
        "auto", description="How bf16 weights are updated; auto is fp32, unless train.fit concedes it."
    )
    optimizer: Literal["auto", "adamw", "adamw8bit"] = Field(
        "auto", description="The optimizer; auto is adamw, unless train.fit concedes it."
    )
    micro_batch_tokens: int | Literal["auto"] = Field(
        "auto", description="Padded tokens computed at once; auto is 16384, or less if less fits in memory."
    )
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto", description="Recompute activations; auto turns it on if not even one row fits without."
    )
    max_prompt_tokens: int = Field(
        8192, ge=1, description="Longest prompt; longer ones are never cut (see on_bad_row)."
    )
    checkpoint_every: int = Field(100, ge=0, description="Steps between checkpoints; 0 for none within a stage.")
    keep_checkpoints: int = Field(1, ge=1, description="Checkpoints of a stage that are kept to resume from.")
    best: Literal["off", "keep", "use"] = Field(
        "keep",
        description="Keep the step of best validation accuracy (or lowest loss), and (use) end the stage with it.",
    )
    stop_if_prior_drops: float | None = Field(
        None, ge=0, lt=1, description="End a stage before the prior suite falls further than this below the base model."
    )
    eval_every: int = Field(50, ge=0, description="Steps between evaluations during training; 0 for none.")
    eval_limit: int = Field(64, ge=1, description="Validation rows per task in these evaluations.")
    on_bad_row: Literal["error", "drop"] = Field(
        "error", description="Rows that lack a field or are too long: stop, or drop and list them."
    )

    @property
    def micro_batch_budget(self) -> int:
        """Padded tokens of a micro-batch, where memory does not limit them."""
        return 16384 if self.micro_batch_tokens == "auto" else self.micro_batch_tokens

    @field_validator("micro_batch_tokens", mode="before")
    @classmethod
    def _tokens(cls, value: object) -> object:
        if value != "auto" and (not isinstance(value, int) or value < 1):
            raise ValueError("must be a number of tokens from 1, or 'auto'")
        return value


class PhaseTrain(Section):
    """Optimization in a second phase; a key that is not set keeps the first phase's value."""

    lr: float | None = Field(None, gt=0, description="Peak learning rate.")
    batch: int | None = Field(None, ge=1, description="Completions per optimizer step.")
    epochs: float | None = Field(None, gt=0, le=1e6, description="Passes over the prompts.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps; overrides epochs.")
    warmup_steps: int | None = Field(None, ge=0, description="Steps of linear warm-up.")
