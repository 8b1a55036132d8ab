"""Are the inputs of a run still those that it was started with? Taken, compared with `runs.inputs`, and judged.

Refused is what would make one result out of two: other rows to train on or to be measured on, other weights, another
tokenizer or template. Said and recorded in the metrics is what makes no difference to the stages that are left (the
training rows of a finished one), and what a user changes knowingly: versions of libraries, a plug-in's code, the date
that a template prints. In a run in which nothing has been trained or measured yet, anything may change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sdft_cli.config import json_files
from sdft_cli.config.model_locations import is_adapter, locate
from sdft_cli.config.overrides import PLACES
from sdft_cli.config.recipe import Recipe
from sdft_cli.data.dataset import available_splits
from sdft_cli.errors import UsageError
from sdft_cli.models import digests, pretrained
from sdft_cli.models.base_models import base_of
from sdft_cli.models.views import VIEWS
from sdft_cli.runs.evaluations import json_object, stage_folders
from sdft_cli.runs.files import write_whole
from sdft_cli.runs.folder import Run, environment, record_change
from sdft_cli.runs.inputs import (
    Difference,
    Files,
    Inputs,
    ModelRecord,
    compare,
    read_inputs,
    record_of,
    write_inputs,
)
from sdft_cli.training.run_plan import RunPlan
from sdft_cli.types import Json

#: Beginnings of the names of a model's files that say how text becomes tokens.
_TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "chat_template", "spiece", "sentencep")
#: Suffixes of the files that make a model compute what it computes.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".py", ".model", ".tiktoken")
_RESTORE = "restore it, or start a new run in another folder (--out)"
#: What may differ between two environments without a word: it is the machine's, not the code's.
_MACHINE = ("machine", "cores")


class InputCheck(NamedTuple):
    """The inputs now, the lines that say what has changed, and the same for the metrics: old and new value by key."""

    inputs: Inputs
    notes: list[str]
    changed: dict[str, list[Json]]


def check_inputs(run: Run, plan: RunPlan) -> InputCheck:
    """Compare the inputs with those that ``run`` was started with; `UsageError` where a difference spoils it. Writes
    nothing."""
    known = read_inputs(run.folder)
    _check_places(run, plan.recipe, known)
    inputs, begun = take(plan, known), _has_begun(run)
    if known is None:
        note = f"{run.folder} has no record of its data and its model at its start; what is there now is recorded"
        return InputCheck(inputs, [note] if begun else [], {})
    differences = _telling(compare(known, inputs))
    for difference in differences if begun else ():
        if reason := _refused(difference, plan):
            raise UsageError(_text(difference, plan.recipe, run) + f", and {reason}", _RESTORE)
    notes = [f"{_text(difference, plan.recipe, run)}; the metrics record it" for difference in differences]
    changed: dict[str, list[Json]] = {f"inputs.{d.key}": [d.before, d.now] for d in differences}
    versions = _versions(run)
    if versions:
        pairs = ", ".join(f"{name} {before} → {now}" for name, (before, now) in versions.items())
        notes.append(f"other versions than when the run was started: {pairs}; the metrics record it")
    return InputCheck(inputs, notes, changed | {f"environment.{name}": pair for name, pair in versions.items()})


def settle(run: Run, check: InputCheck) -> None:
    """From now on the inputs of ``run`` are those of ``check``; the metrics have what has changed."""
    record_change(run, check.changed)
    write_inputs(run.folder, check.inputs)
    if _versions(run):
        write_whole(run.folder / "environment.json", json.dumps(environment(), indent=2) + "\n")


# --- what is there now -----------------------------------------------------------------------------------------------


def take(plan: RunPlan, known: Inputs | None = None) -> Inputs:
    """The inputs as they are; large files that are as ``known`` are not read again."""
    recipe, data, others = plan.recipe, Path(plan.recipe.data), _others(plan.recipe)
    return {
        "data": {task: _records(_splits(data / task), known and known["data"].get(task)) for task in recipe.tasks},
        "model": _model(plan, known and known["model"]),
        "others": _records(others, known and known["others"]),
    }


def _records(paths: Mapping[str, Path], known: Files | None) -> Files:
    return {name: record_of(path, (known or {}).get(name)) for name, path in paths.items()}


def _splits(folder: Path) -> dict[str, Path]:
    return {f"{split}.jsonl": folder / f"{split}.jsonl" for split in available_splits(folder)}


def _model(plan: RunPlan, known: ModelRecord | None) -> ModelRecord:
    location, shown, rendered = plan.location, plan.recipe.views, {}
    for stage in plan.stages:
        first = next(iter(stage.train), None)
        if first and first.prompt and (messages := VIEWS[shown.student](first)):
            rendered[stage.task.name] = digests.of(plan.chat.view_text(first, messages, shown.student_thinking))
    return {
        "files": _records(_model_files(location), known and known["files"]),
        "commit": None if Path(location).is_dir() else pretrained.version_of(location),
        "template": digests.of_chat(plan.chat),
        "rendered": rendered,
    }


def _model_files(location: str) -> dict[str, Path]:
    """The files of a model's folder that loading may read; an adapter's base is below ``base/``. None for a hub id,
    whose commit is recorded."""
    folder = Path(location)
    if not folder.is_dir():
        return {}
    files = {f.name: f for f in sorted(folder.iterdir()) if f.suffix in digests.READ and f.is_file()}
    if is_adapter(location):
        files |= {f"base/{name}": path for name, path in _model_files(base_of(location).location).items()}
    return files


def _others(recipe: Recipe) -> dict[str, Path]:
    """Plug-in files, general prompts and local benchmark files, by path."""
    paths = [*map(Path, recipe.plugins), *([Path(recipe.general)] if recipe.general else [])]
    if recipe.evaluation.harness.benchmarks:
        paths += sorted(Path(recipe.evaluation.harness.benchmarks).rglob("*"))
    return {str(path): path for path in paths if path.is_file()}


# --- what a difference means -----------------------------------------------------------------------------------------


def _has_begun(run: Run) -> bool:
    """Whether anything has been trained or measured."""
    return run.checkpoints.latest() is not None or bool(stage_folders(run.folder))


def _telling(differences: Sequence[Difference]) -> list[Difference]:
    """Without those that follow from others: how a row is rendered, where the row or the template is another."""
    keys = {difference.key for difference in differences}
    template = any(key.startswith("model.") for key in keys)

    def follows(key: str) -> bool:
        task = key.removeprefix("rendered.")
        return task != key and (template or f"data.{task}.train.jsonl" in keys)

    return [difference for difference in differences if not follows(difference.key)]


def _refused(difference: Difference, plan: RunPlan) -> str:
    """Why the run cannot go on with it; empty if it can."""
    kind, _, rest = difference.key.partition(".")
    if kind == "data":
        task, _, file = rest.partition(".")
        if file not in ("train.jsonl", "corpus.jsonl"):
            return "the run was measured on the rows of then"
        left = [number for number in plan.todo if plan.recipe.tasks[number - 1] == task]
        return f"stage {left[0]} trains on them" if left else ""
    if kind == "model":
        return "the run's stages began from the model of then" if _decides(rest) else ""
    if kind == "others" and rest not in plan.recipe.plugins:
        return "the run was trained or measured on the file of then"
    return ""


def _decides(name: str) -> bool:
    """Whether a model computes something else, or reads text as something else, with another such file."""
    file = Path(name).name
    if name in ("commit", "template") or file in ("config.json", "adapter_config.json"):
        return True
    return file.startswith(_TOKENIZER) or file.endswith(_WEIGHTS)


def _text(difference: Difference, recipe: Recipe, run: Run) -> str:
    """``data/a/train.jsonl is not as it was when the run was started (480 rows, …; now 470 rows, …)``."""
    kind, what = difference.key.partition(".")[0], difference.what
    moved = kind in PLACES and getattr(recipe, kind) != getattr(run.recipe, kind)
    folder = {"data": recipe.data, "model": locate(recipe.model)}.get(kind, "")
    if folder and difference.key not in ("model.commit", "model.template"):
        what = str(Path(folder) / what)
    flag = f"--{kind} {getattr(recipe, kind)}: " if moved else ""
    date = " (a template may print the date)" if kind == "rendered" else ""
    return f"{flag}{what} is not as it was when the run was started{date} ({difference.before}; now {difference.now})"


def _check_places(run: Run, recipe: Recipe, known: Inputs | None) -> None:
    """Refuse another place of the model or the data that cannot be compared with the recorded one."""
    for key in ("model", "data"):
        before, now = getattr(run.recipe, key), getattr(recipe, key)
        comparable = known is not None and (key == "data" or (known["model"]["files"] and Path(locate(now)).is_dir()))
        if now != before and not comparable and not _same_place(before, now):
            problem = f"the run was started with {before}, and has no record of its files to compare with"
            raise UsageError(f"--{key} {now}: {problem}", f"go on with {before}, or start a new run")


def _same_place(before: str, now: str) -> bool:
    return Path(before).exists() and Path(before).resolve() == Path(now).resolve()


def _versions(run: Run) -> dict[str, list[Json]]:
    """The versions that are not those of ``environment.json``, by name; `folder.RANDOM_NUMBERS` counts as one."""
    path = run.folder / "environment.json"
    if not json_files.exists(path):
        return {}
    recorded, now = {"random_numbers": "by batch", **json_object(path)}, environment()
    return {
        name: [recorded[name], now[name]]
        for name in now
        if name in recorded and name not in _MACHINE and recorded[name] != now[name]
    }
