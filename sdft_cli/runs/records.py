"""The records of a run folder, one definition each: rows of ``metrics.jsonl``, items and scores of evaluations.

They are plain dictionaries on disk and in memory, so that a reader needs nothing of ours. mypy finds a mistyped key,
and whatever is read from a file is checked against these types (`json_files`). Shares are between 0 and 1, lengths in
tokens, divergences in nats per token, times in seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, NotRequired

from pydantic import Field

from sdft_cli.config.json_files import Amount, Count, Ends, LoggedRecord, Record, Share
from sdft_cli.runs.token_records import BaseDivergence, SkipFirstFacts, TokenLoss
from sdft_cli.types import Json


class StageId(NamedTuple):
    """A stage: its number (from 1; 0 is the untrained model) and its task."""

    number: int
    task: str

    def __str__(self) -> str:
        """The name of the stage's folders."""
        return f"{self.number:02d}-{self.task}"


#: The untrained model, measured like a stage.
BASE = StageId(0, "base")


class Position(NamedTuple):
    """Where a run stands: ``step`` optimizer steps of the stage are done, the last of them in ``phase`` (from 0)."""

    stage: StageId
    phase: int
    step: int


# --- metrics.jsonl ---------------------------------------------------------------------------------------------------


class At(Record):
    """Where in a run a row was logged: a stage, by number and task, and its optimizer step."""

    stage: Count
    task: str
    step: Count


class TrainingAt(At):
    """Where in training a row was logged: a `Position`, and the steps since the start of the run."""

    phase: NotRequired[Count]
    global_step: NotRequired[Count]


class StepFacts(LoggedRecord, total=False):
    """What the trainer reports of one optimizer step.

    ``kl`` is KL(teacher || student) in nats, whatever the loss; ``divergence`` the method's own, where it has one;
    ``reverse_kl`` the sampled estimate of KL(student || teacher), where only the sampled tokens were scored.
    ``factors`` has the mean of every token factor, ``staleness`` how many optimizer steps older than the weights the
    completions are, where they are prefetched or used more than once.
    ``signal`` is the share of completions that carry one, ``silent`` the shares of those that carry none by cause (see
    `training.silence`), ``empty`` the share without any text; ``runs_past`` names what most of the completions that
    were cut contain, and were not stopped by. ``skipped_kl`` is ``kl`` at the first tokens, which ``skip_first`` leaves
    out, and ``skipped_share`` their share of the sum over all tokens; ``leaked`` is the share of completions that
    repeat the instructions around the teacher's demonstration, and ``leaked_as`` what they repeat most often. These
    four are measured at a few steps.
    ``logprob_gap`` is the mean absolute difference of the sampled tokens' log-probs between sampler and trainer; None
    where the two are of different distributions (another temperature, top-k or top-p, another writer). Where samples
    are as old as the weights it is rounding, and the dropout of an adapter; anything above is a fault.
    ``sync_gap`` is the largest one that an engine's weight check found after its last update.
    """

    loss: float
    divergence: float | None
    kl: float | None
    reverse_kl: float | None
    entropy: float
    logprob_gap: float | None
    completion_tokens: float
    thinking_tokens: float
    truncated: float
    repeated: float
    distinct: float
    signal: float
    silent: dict[str, float]
    empty: float
    runs_past: str
    skipped_kl: float
    skipped_share: float
    leaked: float
    leaked_as: str
    reward: float | None
    factors: dict[str, float]
    staleness: int
    tokens_per_second: float
    lr: float
    grad_norm: float
    seconds: float
    rollout_seconds: float
    micro_batch_tokens: int
    memory: str
    sync_gap: float
    max_batch: int


class StepRow(StepFacts, TrainingAt):
    """One optimizer step."""

    kind: Literal["step"]


class Completeness(Record, total=False):
    """Of the completions of a task or suite, the share that was ``cut`` at the limit of new tokens, and the share that
    is ``exact`` (`grading.exact_match`); None, or not there, where no completion tells."""

    cut: Share | None
    exact: Share | None


class ShortScore(Completeness):
    """An accuracy and the number of items behind it; of a task also its validation loss, where it has one."""

    accuracy: Share | None
    n: Count
    loss: NotRequired[TokenLoss]


class EvalFacts(Record):
    """Mid-training evaluation: accuracies on a few validation rows of every task, and on a few items of the suite.
    ``note`` says why an accuracy is missing, where the judge could not be asked."""

    scores: dict[str, ShortScore]
    suite: ShortScore | None
    note: NotRequired[str]


class EvalRow(TrainingAt, EvalFacts):
    """One mid-training evaluation."""

    kind: Literal["eval"]


class GuardFacts(Record):
    """A guard's finding after a step: ``text`` has the figures, ``hint`` the recipe keys to change."""

    guard: str
    level: Literal["warn", "stop"]
    text: str
    hint: str


class GuardRow(TrainingAt, GuardFacts):
    """One finding of a guard; ``step`` is the step it looked at."""

    kind: Literal["guard"]


class MarkRecord(Record):
    """A step and its mid-training accuracies: on the stage's own validation rows, of which ``n`` were scored, and on
    the prior suite. ``loss`` is the validation loss."""

    step: Count
    validation: Share | None
    prior: Share | None
    n: NotRequired[Count]
    loss: NotRequired[Amount | None]


class EndingFacts(Record):
    """The step whose model a stage ends with (0: the model it began with), why, and its best and last evaluation."""

    model_of: Count
    why: Literal["last step", "best validation", "prior dropped"]
    best: MarkRecord | None
    last: MarkRecord | None


class EndingRow(TrainingAt, EndingFacts):
    """How a stage ended; ``step`` is the last step that was trained."""

    kind: Literal["ending"]


#: An old and a new value.
Pair = Annotated[list[Json], Field(min_length=2, max_length=2)]


class SettingsRow(At):
    """From here on a run follows another recipe, or has other inputs: ``changed`` has the old and the new value of each
    key. Keys of `runs.inputs` and of the environment begin with ``inputs.`` and ``environment.``."""

    kind: Literal["settings"]
    changed: dict[str, Pair]


class NoteRow(At):
    """What was found before the first step, and a reader of the results should know: a limit that was lowered, rows
    that were dropped."""

    kind: Literal["note"]
    text: str


class ModelFacts(Record):
    """How the model of a stage is sampled from and how it is scored, each by the fastest way that was found right."""

    sampling: str
    scoring: str


class ModelRow(TrainingAt, ModelFacts):
    """Logged when training begins, and where a later stage or a resumed run differs from the row before."""

    kind: Literal["model"]


class SkipFirstRow(TrainingAt, SkipFirstFacts):
    """Logged where a phase begins whose recipe says ``auto``; a resumed run takes it from here."""

    kind: Literal["skip_first"]


#: Any row of ``metrics.jsonl``; ``kind`` tells which.
MetricsRow = Annotated[
    StepRow | EvalRow | GuardRow | EndingRow | SettingsRow | ModelRow | NoteRow | SkipFirstRow,
    Field(discriminator="kind"),
]


# --- evaluations -----------------------------------------------------------------------------------------------------


class ItemScore(Record):
    """How one completion was graded. A value of None is unscored, not wrong; ``extra`` has a grader's second scores,
    ``exact`` is what `grading.exact_match` says, where it can tell."""

    id: str
    value: Share | None
    extracted: str | None
    why: str
    extra: NotRequired[dict[str, float]]
    exact: NotRequired[bool]


class ItemRecord(ItemScore):
    """One graded completion, a line of ``evals/NN-<task>/<unit>.jsonl``.

    ``finish`` is "length" where it was cut at the limit of new tokens. Of a harness item that offers ``choices``, the
    likeliest one is the completion; ``log_likelihoods`` are in nats.
    """

    completion: str
    prompt: str
    answer: Json
    tokens: Count
    finish: NotRequired[str]
    document: NotRequired[str]
    part: NotRequired[str]
    sample: NotRequired[Count]
    choices: NotRequired[list[str]]
    log_likelihoods: NotRequired[list[float]]


class PassAt(Record):
    """pass@k over questions; ``values`` and ``intervals`` by k as text."""

    samples: Count
    questions: Count
    unscored: Count
    values: dict[str, Share | None]
    intervals: dict[str, Ends | None]
    mean_tokens: Amount


class Summary(Completeness):
    """Accuracy with its 95 % interval over the scored records; ``extra`` has the means of a grader's second scores,
    ``loss`` the loss of what the rows should be answered with."""

    accuracy: Share | None
    correct: NotRequired[Amount]
    n: Count
    unscored: NotRequired[Count]
    interval: Ends | None
    mean_tokens: NotRequired[Amount]
    note: str
    extra: NotRequired[dict[str, float]]
    pass_at: NotRequired[PassAt]
    metric: NotRequired[str]
    metrics: NotRequired[dict[str, float | str | None]]
    loss: NotRequired[TokenLoss]


class FurtherScores(Record, total=False):
    """What is measured of a task beyond the accuracy on its test split: another split, and what was asked for by
    ``--pass-at`` and ``--also``."""

    ood: Summary
    pass_at: PassAt
    oracle: Summary
    ceiling: Summary
    kl: BaseDivergence


class TaskSummary(Summary, total=False):
    """The test split's summary, with the `FurtherScores` inside it."""

    ood: Summary
    oracle: Summary
    ceiling: Summary
    kl: BaseDivergence


#: In what two evaluations of one unit must agree to be compared, by name.
UnitSettings = dict[str, Json]


class PartFacts(Record, total=False):
    """What a battery reports of one of its parts besides the records (see `types.Battery.measure`); it overrides what
    would follow from them."""

    accuracy: Share | None
    metric: str
    metrics: dict[str, float | str | None]
    note: str


class SuiteSummary(Summary):
    """The plain mean over ``parts``."""

    name: str
    parts: dict[str, Summary]


class Scores(Record):
    """``scores.json`` of a stage. ``settings`` by unit: in what two evaluations must agree to be compared."""

    stage: Count
    task: str | None
    tasks: dict[str, TaskSummary]
    suite: SuiteSummary | None
    settings: NotRequired[dict[str, UnitSettings]]
    seconds: NotRequired[Amount]
