"""Sections of a recipe about measuring and watching a run: evaluation, the harness, guards."""

from __future__ import annotations

from pydantic import Field

from sdft_cli.config.sections import MaxNewTokens, Section
from sdft_cli.types import Json


class Harness(Section):
    """Settings of the EleutherAI harness (suites ``prior`` and ``harness``); the defaults are the SDFT authors'."""

    tasks: tuple[str, ...] = Field((), description="Tasks of the suite harness.")
    benchmarks: str | None = Field(None, description="Folder of local benchmark files; the hub if not set.")
    num_fewshot: int | None = Field(
        None, ge=0, description="Examples in the prompt; 0 in the suite prior and the task's own otherwise, if not set."
    )
    apply_chat_template: bool | str = Field(False, description="Use the model's chat template, or the named one.")
    batch_size: int | str = Field(16, description="The harness's batch size.")
    allow_code_execution: bool = Field(False, description="Run code that the model writes (HumanEval), in a sandbox.")
    args: dict[str, Json] = Field(
        default_factory=dict, description="More arguments of the harness's model or evaluation, passed as they are."
    )
    log: str | None = Field(None, description="Folder for the harness's own result files.")


class Evaluation(Section):
    """How accuracy is measured before and after every stage: greedily, on the whole test split unless limited."""

    limit: int | None = Field(None, ge=1, description="Maximum test rows per task and items per part of a suite.")
    max_new_tokens: MaxNewTokens = Field(
        None,
        description="Longest completion that is scored; the task's own limit if not set; auto: as long as "
        "demonstrations suggest.",
    )
    harness: Harness = Field(Harness(), description="Settings of the EleutherAI harness.")


class GuardSettings(Section):
    """Limits past which a run is warned about and stopped (``guards.py``); a limit of none turns its guard off.

    Most limits are relative to the start: the median over the phase's first ``window`` steps.
    """

    enabled: bool = Field(True, description="Watch the run.")
    window: int = Field(10, ge=1, description="Steps whose median counts as the start.")
    patience: int = Field(10, ge=1, description="Steps in a row past a limit that stop the run.")
    repetition: float | None = Field(0.7, ge=0, le=1, description="Share of a completion's 4-grams that are repeats.")
    truncation: float | None = Field(0.9, gt=0, le=1, description="Share of completions cut off at the token limit.")
    length_runaway: float | None = Field(4.0, gt=1, description="Mean length, as a multiple of the start.")
    length_collapse: float | None = Field(0.2, gt=0, lt=1, description="Mean length, as a share of the start.")
    entropy_collapse: float | None = Field(0.1, gt=0, lt=1, description="Entropy, as a share of the start.")
    divergence_spike: float | None = Field(3.0, gt=1, description="KL or loss, as a multiple of the start.")
    uniform: float | None = Field(0.98, gt=0, lt=1, description="Entropy, as a share of the log of the vocabulary.")
    sampler_gap: float | None = Field(
        0.2, gt=0, description="Difference of sampler's and trainer's log-probs, in nats per token."
    )
    no_signal: float | None = Field(
        0.02,
        ge=0,
        lt=1,
        description="Share of completions that have text and carry a signal, at or below which nothing is learned.",
    )
    no_gradient: float | None = Field(1e-6, ge=0, description="Gradient norm at or below which nothing is learned.")
    masked_start: float | None = Field(
        0.5, gt=0, lt=1, description="Share of the KL at the first tokens, which skip_first leaves out."
    )
    no_difference: float | None = Field(
        1e-4, ge=0, description="KL from the start, in nats per token, at or below which the teacher teaches nothing."
    )
    noisy_samples: float | None = Field(
        2.0, ge=0, description="Entropy at the start, in nats per token, from which samples are mostly noise."
    )
    running_on: float | None = Field(
        0.5, gt=0, le=1, description="Share of completions that are cut, where demonstrations are shorter."
    )
    leaked_wording: float | None = Field(
        0.25, gt=0, lt=1, description="Rise of the share of completions that repeat the teacher's instructions."
    )
    no_progress: int | None = Field(
        3, ge=1, description="Evaluations in a row that are no better than the start, though the KL or the loss falls."
    )
