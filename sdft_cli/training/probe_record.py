"""What a probe measures, as `sdft probe --json` prints it. Shares are from 0 to 1, lengths in tokens, times in seconds,
divergences and losses in nats per token."""

from __future__ import annotations

from typing import Literal, TypedDict

from sdft_cli.evaluation.leakage import Leakage
from sdft_cli.evaluation.summaries import Gain
from sdft_cli.runs.records import Summary
from sdft_cli.runs.token_records import Divergences, MeanValue, SkipFirstFacts
from sdft_cli.stats.intervals import Interval
from sdft_cli.training.cost_estimates import Footprint, Percentiles
from sdft_cli.training.plan_text import Cell, PlanFacts
from sdft_cli.types import Json


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


class WrittenLengths(TypedDict):
    """Lengths of completions. ``ended`` is the share that ended by itself instead of being cut at the limit; None where
    there is no completion, and for demonstrations, which nothing cuts."""

    tokens: Percentiles
    ended: float | None


class Clean(TypedDict):
    """Clean completions: right, ended by themselves, and without wording of the view. A graded score counts as far as
    it is right."""

    value: float
    interval: Interval
    n: int


class ViewProbe(TypedDict):
    """A view as the teacher's, on the ``rows`` that it can show; ``shown`` is their share of the rows tried.

    ``gain`` is against the student without the view, ``clean_gain`` the clean share minus that of the recipe's own view
    (None for that view itself); both are paired on the rows that both have. ``sampled`` is the teacher when it is
    sampled; None for views that are not in question. ``first`` has, for the numbers of tokens in `probe_views.FIRST`,
    the share of the forward KL that lies at so many first tokens of the student's completions, and ``masked`` that of
    the tokens that ``objective.skip_first`` leaves out. ``skip_first`` is what ``auto`` would come to (`first_tokens`).
    Tokens are counted from the end of a completion's thinking.
    """

    view: str
    demonstrates: bool
    rows: int
    shown: float
    teacher: Summary
    lengths: WrittenLengths
    gain: Gain | None
    leakage: Leakage
    clean: Clean | None
    clean_gain: Gain | None
    sampled: Temperatures | None
    kl: Divergences | None
    first: dict[str, float]
    masked: float | None
    skip_first: SkipFirstFacts | None


class Rate(TypedDict):
    """An accuracy on ``n`` rows; None where nothing was scored."""

    accuracy: float | None
    interval: Interval | None
    n: int


class TakeoverPoint(Rate):
    """The teacher goes on greedily after the student's first ``tokens``. ``over`` counts the rows whose student had
    ended by then, so that there was nothing left to take over."""

    tokens: int
    over: int
    change: Gain | None


class Takeover(TypedDict):
    """Accuracies when the teacher, with ``view``, takes over from the student's own beginnings, sampled at temperature
    1. ``change`` of a point is its accuracy minus that of the teacher alone, on the same rows."""

    view: str
    points: list[TakeoverPoint]


class TemperaturePoint(Rate):
    """The teacher's completions, sampled at a ``temperature``; ``ended`` is the share that ended by itself, ``clean``
    the share of those that are right as well and repeat nothing of the view."""

    temperature: float
    ended: float | None
    clean: float


class Temperatures(TypedDict):
    """Accuracies of the teacher, with ``view``, when it is sampled: at the recipe's own temperature, then at lower ones
    until it keeps enough of its ``greedy`` accuracy on the same rows (`probe_temperatures`). ``keys`` are those of the
    recipe that set the temperature it is learned at; there are none where no teacher is learned from."""

    view: str
    keys: list[str]
    greedy: float
    points: list[TemperaturePoint]


class Surprise(TypedDict):
    """Negative log-likelihoods under the student's view: of the ``demonstrations``, and of the student's ``own`` greedy
    completions. The further apart, the further off-policy are the demonstrations."""

    demonstrations: MeanValue | None
    own: MeanValue | None


class Pace(TypedDict):
    """Steps of a phase and the seconds that they will take on a machine that does nothing else.

    ``once_seconds`` are for the completions that a teacher writes before the first step, ``signal`` is the share of the
    timed batch that carried one. ``machine_share`` is the share of the processor time it could use that the timed step
    was given, 1 on a quiet machine. All are None where a step does not fit into memory.
    """

    steps: int
    seconds: float | None
    step_seconds: float | None
    rollout_seconds: float | None
    once_seconds: float | None
    machine_share: float | None
    signal: float | None


class TrainingTime(TypedDict):
    """The phases of a task's training, and their sum; ``seconds`` is None where one of theirs is."""

    steps: int
    seconds: float | None
    phases: list[Pace]


class TaskProbe(TypedDict):
    """One task. ``student_sampled`` is the student at temperature 1; the other two are greedy. ``teacher``, ``gain``
    and ``kl`` are those of the recipe's own view, which is the first of ``views``.

    ``lengths`` are those of student, student_sampled and demonstrations. ``dropped`` counts the rows that training
    would refuse, by reason. ``training`` is that of the recipe's method, ``other_training`` that of SFT and SDFT with
    its other settings, as far as the rows allow them. ``takeover`` is None where it was left out, and ``temperatures``
    where nothing could be scored.
    """

    task: str
    rows: int
    rows_there: int
    max_new_tokens: int
    note: str
    student: Summary
    student_sampled: Summary
    teacher: Summary
    gain: Gain | None
    kl: Divergences | None
    views: list[ViewProbe]
    takeover: Takeover | None
    temperatures: Temperatures | None
    surprise: Surprise
    lengths: dict[str, WrittenLengths]
    prompts: PromptLengths
    dropped: dict[str, int]
    training: TrainingTime
    other_training: dict[str, TrainingTime]


class ProbeMemory(Footprint):
    """The run's predicted needs; and the peak of this probe, of the GPU or of the whole process, with what the process
    held before the model was loaded."""

    peak_bytes: int
    peak_of: Literal["gpu", "process"]
    before_bytes: int


class ElsewhereFacts(TypedDict, total=False):
    """How the run fits on hardware that was asked about, and what else would fit where."""

    plan: PlanFacts
    what_fits: list[Cell]


class Measured(ElsewhereFacts):
    """Everything that a probe measures. ``limit`` is the most train rows per task, ``probe_seconds`` the time that the
    probe itself took, ``other_peaks`` the predicted peak memory of other methods in bytes."""

    method: str
    model: str
    seed: int
    limit: int
    quick: bool
    teacher_view: str
    tasks: list[TaskProbe]
    steps: int
    seconds: float | None
    probe_seconds: float
    memory: ProbeMemory
    other_peaks: dict[str, int]


class Advice(TypedDict):
    """A warning about a task; ``what`` names its kind."""

    task: str
    what: str
    message: str
    hint: str


#: What a probe concludes about one task; `probe_advice` has the rules.
VerdictKind = Literal[
    "sdft", "sdft_with_another_view", "teacher_limits", "teacher_no_better", "student_solves", "undecided", "unscored"
]


class Verdict(TypedDict):
    """What a probe concludes about one task: its kind, a sentence with the numbers behind it, and what to do. ``view``
    is the teacher's view that serves this task best; None where none helps."""

    task: str
    kind: VerdictKind
    sentence: str
    todo: str
    view: str | None


class Setting(TypedDict):
    """One key of the recommended recipe, by its dotted path, with the reason for its value."""

    key: str
    value: Json
    reason: str


class Recommendation(TypedDict):
    """A recipe drawn from a probe: ``settings`` in their order, the ``grid`` of rates that a sweep should try, and
    ``toml``, all of it as a recipe file. ``notes`` say for which task it is a compromise, or leaves one out."""

    settings: list[Setting]
    grid: dict[str, list[Json]]
    notes: list[str]
    toml: str


class ProbeReport(Measured):
    """A probe with what is concluded from it. ``recipe`` is None where there is nothing to train."""

    verdicts: list[Verdict]
    recipe: Recommendation | None
    warnings: list[Advice]
