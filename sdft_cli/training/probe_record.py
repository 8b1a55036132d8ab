"""What a probe measures, as `sdft probe --json` prints it. Shares are of 1, lengths in tokens, times in seconds."""

from __future__ import annotations

from typing import Literal, TypedDict

from sdft_cli.evaluation.summaries import Gain
from sdft_cli.runs.records import Summary
from sdft_cli.runs.token_records import Divergences
from sdft_cli.training.cost_estimates import Footprint, Percentiles


class PromptLengths(TypedDict):
    """Prompts of all rows that have the method's fields, under both views, those that are too long included."""

    rows: int
    student: Percentiles
    teacher: Percentiles
    too_long: int
    over_max_prompt_tokens: int
    over_window: int
    max_prompt_tokens: int
    window: int


class Pace(TypedDict):
    """Steps of a phase and the seconds that they will take.

    ``once_seconds`` are for the completions that a teacher writes before the first step, ``signal`` is the share of the
    timed batch that carried one. All are None where a step does not fit into memory.
    """

    steps: int
    seconds: float | None
    step_seconds: float | None
    rollout_seconds: float | None
    once_seconds: float | None
    signal: float | None


class TrainingTime(TypedDict):
    """The phases of a task's training, and their sum; ``seconds`` is None where one of theirs is."""

    steps: int
    seconds: float | None
    phases: list[Pace]


class TaskProbe(TypedDict):
    """One task. ``student_sampled`` is the student at temperature 1; the other two are greedy. ``dropped`` counts the
    rows that training would refuse, by reason."""

    task: str
    rows: int
    max_new_tokens: int
    note: str
    student: Summary
    student_sampled: Summary
    teacher: Summary
    gain: Gain | None
    kl: Divergences | None
    prompts: PromptLengths
    dropped: dict[str, int]
    training: TrainingTime


class ProbeMemory(Footprint):
    """The run's predicted needs; and the peak of this probe, of the GPU or of the whole process, with what the process
    held before the model was loaded."""

    peak_bytes: int
    peak_of: Literal["gpu", "process"]
    before_bytes: int


class Measured(TypedDict):
    """Everything that a probe measures. ``limit`` is the most train rows per task."""

    method: str
    model: str
    seed: int
    limit: int
    teacher_view: str
    tasks: list[TaskProbe]
    steps: int
    seconds: float | None
    memory: ProbeMemory


class Advice(TypedDict):
    """A warning about a task; ``what`` names its kind."""

    task: str
    what: str
    message: str
    hint: str


class ProbeReport(Measured):
    """A probe with the warnings drawn from it."""

    warnings: list[Advice]
