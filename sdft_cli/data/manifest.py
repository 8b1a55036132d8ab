"""A dataset's manifest, ``data/<task>/manifest.json``: written last, checked before any row is read.

Its ``format`` is the version of the whole folder: the names of the files, the fields of a row, the keys below. `FORMAT`
is the version this code reads and writes; it goes up whenever an older reader would misread a newer folder, or the
other way round. A folder with another version, or none, is refused: rows can be prepared again from their sources, and
whatever a teacher was paid for is stored elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired

from sdft_cli.config import json_files
from sdft_cli.config.json_files import Count, Record, Share
from sdft_cli.errors import UsageError, shown
from sdft_cli.types import Json, NewTokens

FORMAT = 1
MANIFEST = "manifest.json"


class DroppedRow(Record):
    """A `Dropped` as it is written."""

    where: str
    reason: str
    detail: str


class DropCounts(Record):
    """How many rows were left out, for which reasons, and the first ones by name."""

    count: Count
    reasons: dict[str, Count]
    rows: list[DroppedRow]


class SourceFile(Record):
    """A file of the sources: one that was read, with its hash and how many rows it gave, and the split of its rows if
    its name or a flag says it; or one that was left out, and why."""

    file: str
    sha256: NotRequired[str]
    rows: NotRequired[Count]
    split: NotRequired[str]
    left_out: NotRequired[str]


#: The rule that grades a task made from a user's own rows (`Task.grader`, `grading.named_rules`): its ``name``, its
#: ``pattern`` if it has one, ``chosen`` if it was chosen for the user, and as JSON what is stated once for all rows.
GraderRule = dict[str, str]


class Percentiles(Record):
    """Percentiles of a length by nearest rank: each is a value that occurs."""

    p50: int
    p90: int
    p99: int
    max: int


#: Split -> part (student, teacher, demonstration) -> percentiles.
SplitLengths = dict[str, dict[str, Percentiles]]


class Lengths(Record):
    """How long rows are under the views of ``method``; ``tokens`` are those of ``model``."""

    method: str
    characters: SplitLengths
    model: NotRequired[str]
    tokens: NotRequired[SplitLengths]


class TeacherCounts(Record, total=False):
    """Counts for demonstrations (the first five) or for questions about articles.

    ``accepted_at[i]`` counts the prompts whose sample ``i`` was the first right one.
    """

    prompts: int
    accepted: int
    accepted_at: list[int]
    none_right: int
    had_one: int
    articles: int
    questions_asked_for: int
    questions: int
    indirect_questions: int
    articles_short_of_questions: int


class TeacherRecord(TeacherCounts):
    """The teacher that wrote demonstrations or questions: who it is, how it was sampled, what it wrote.

    ``base_url`` is that of an endpoint's model, ``sha256`` that of a local model's files. ``rejected`` counts samples,
    or parts of them, by reason; tokens are those of all samples that were looked at. ``left_out`` names what was sent
    otherwise than the other fields say, because the endpoint refuses it: ``temperature`` is then the endpoint's own.
    """

    model: str
    base_url: NotRequired[str]
    sha256: NotRequired[str]
    left_out: NotRequired[list[str]]
    temperature: float
    max_tokens: int
    samples: int
    send: dict[str, Json]
    rejected: dict[str, int]
    prompt_tokens: int
    completion_tokens: int


class ConstantAnswer(Record):
    """The most frequent gold answer of a split, and what it would score as the answer to every row that can be scored;
    a row on which the rule does not score it counts as wrong."""

    answer: str
    score: Share


class SplitGrading(Record):
    """What is known of the task's rule on one split before any model answers.

    ``graded`` counts the rows whose gold was graded, ``unwinnable`` those among them that cannot be won,
    ``need_judge`` the rows that no rule scores, ``unproven`` those of which it is not known how a right completion
    looks. ``chance`` is what guessing scores; None where it is not defined, and in ``constant_answer`` for training
    rows and where no rule scores.
    """

    rows: Count
    graded: Count
    unwinnable: Count
    need_judge: Count
    unproven: Count
    constant_answer: ConstantAnswer | None
    chance: Share | None


class Grading(Record):
    """What `sdft prepare` proved of the task's rule (`data.gold_checks`): which rows it gives no credit for their own
    gold, by reason, and the first ones by name.

    ``share`` is of the graded rows, None where none was. With ``on_unwinnable`` "drop" these rows are not in the
    dataset, and ``splits`` are those of the rows that are.
    """

    on_unwinnable: str
    graded: Count
    unwinnable: DropCounts
    share: Share | None
    splits: dict[str, SplitGrading]


class ManifestExtras(Record, total=False):
    """The keys that `sdft prepare` adds to what `write_dataset` knows by itself.

    ``gold_as_demonstration``: how many training rows have nothing but their gold answer as the demonstration, if any.
    """

    task_note: str
    grader: GraderRule
    max_new_tokens: NewTokens
    columns: dict[str, Json]
    gold_as_demonstration: Count
    sources: list[SourceFile]
    teacher: TeacherRecord
    lengths: Lengths
    grading: Grading


class Manifest(ManifestExtras):
    """``manifest.json``. Nothing in it depends on the time or the machine."""

    format: int
    task: str
    source: str
    licence: str
    rows: dict[str, Count]
    with_demonstration: Count
    demonstrations: str
    on_overlap: str
    seed: int
    world: int
    notes: list[str]
    dropped: DropCounts
    filtered: DropCounts
    sha256: dict[str, str]
    sdft: str


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a dataset folder.

    Raises `UsageError`, with the command that prepares the dataset, as `check_manifest` does, and for a broken one.
    """
    manifest: Manifest = _checked(folder, Manifest)
    return manifest


def read_extras(folder: Path) -> ManifestExtras:
    """What `sdft prepare` has added to the manifest, which is all that a task made of a user's own rows needs."""
    extras: ManifestExtras = _checked(folder, ManifestExtras)
    return extras


def check_manifest(folder: Path) -> None:
    """Raise `UsageError`, with the command that prepares the dataset, if the folder is missing, was left half-written,
    or has another format version."""
    if not folder.is_dir():
        raise UsageError(f"no dataset at {folder}", f"prepare it with: {prepare_command(folder)}")
    path, hint = folder / MANIFEST, f"prepare it again with: {prepare_command(folder)}"
    if not json_files.exists(path):
        raise UsageError(f"{folder} has no {MANIFEST}, so it is not a finished dataset", hint)
    data: Json = json_files.read(path, Json, hint)
    recorded: dict[str, Json] = data if isinstance(data, dict) else {}
    if (version := recorded.get("format")) != FORMAT:
        raise _other_format(folder, version, recorded)


def _checked(folder: Path, kind: type) -> Json:
    check_manifest(folder)
    return json_files.read(folder / MANIFEST, kind, f"prepare it again with: {prepare_command(folder)}")


def prepare_command(folder: Path, needs_source: bool = False) -> str:
    """The command that prepares the dataset in ``folder``."""
    task = folder.name
    words = f"--source {task}=PATH" if needs_source else f"--tasks {task}"
    where = "" if folder.parent == Path("data") else f" --data {folder.parent}"
    return f"sdft prepare {words}{where}"


def _other_format(folder: Path, version: Json, data: dict[str, Json]) -> UsageError:
    """The refusal of a manifest with another format version than ours, or none."""
    if version is None:
        message = f"{folder / MANIFEST} has no format version: the dataset was prepared by an older sdft"
    else:
        message = f"{folder / MANIFEST} has format version {shown(version)}, and this sdft reads version {FORMAT}"
    command = prepare_command(folder, needs_source=bool(data.get("sources")))
    teacher = " and the same --teacher (its replies are stored, and free)" if data.get("teacher") else ""
    return UsageError(message, f"prepare it again with: {command}{teacher}")
