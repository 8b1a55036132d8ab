"""Find the harness's tasks without its scan, which reads fourteen thousand files and takes ten seconds or more.

A benchmark of the prior suite is read from the harness's own file, whose place is known; for local files, a few lines
that say where the rows come from are laid over it. HumanEval has a file of ours, because its scoring is ours
(`humaneval`). Any other task is looked up by its file's name; only groups and files named differently need the scan.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sdft_cli.errors import SdftError, UsageError, choose
from sdft_cli.harness import benchmarks
from sdft_cli.harness.benchmarks import BENCHMARKS, MMLU_SUBJECTS, Benchmark

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

HUMANEVAL = Path(__file__).with_name("humaneval.yaml")


@dataclass(frozen=True)
class HarnessTask:
    """One part of a suite: a benchmark of ours, or a task or group by the harness's name.

    ``metric`` is a name in the harness's results, with or without its filter (``exact_match:strict-match``); None means
    a benchmark's own, or else ``acc`` if the task reports it, or else the first that it reports.
    """

    name: str
    metric: str | None = None
    benchmark: Benchmark | None = None

    @property
    def task(self) -> str:
        return self.benchmark.task if self.benchmark else self.name

    @property
    def runs_code(self) -> bool:
        return self.benchmark is not None and self.benchmark.runs_code


class Loaded(NamedTuple):
    """The harness's own task or group, with its data, and the manager that loaded it."""

    manager: TaskManager
    task: Task | Group

    @property
    def leaves(self) -> list[Task]:
        """The tasks of a task or group."""
        return list(self.task.get_all_tasks()) if hasattr(self.task, "get_all_tasks") else [self.task]


def parse(text: str) -> HarnessTask:
    """``TASK``, ``TASK:METRIC`` or ``TASK:METRIC:FILTER``; benchmarks go by our names as well as by the harness's."""
    name, _, metric = text.partition(":")
    benchmark = next((b for b in BENCHMARKS.values() if name in (b.name, b.task)), None)
    if benchmark is None:
        return HarnessTask(name, metric or None)
    return HarnessTask(benchmark.name, metric or benchmark.metric.replace(",", ":"), benchmark)


def load(part: HarnessTask, folder: str | None, scratch: Path) -> Loaded:
    """``part`` as the harness has it, with its data.

    Rows come from the local files in ``folder``, or from the hub; ``scratch`` is an empty folder for our task files.
    """
    from lm_eval.tasks import TaskManager

    if part.benchmark:
        places = [scratch] if _written(part.benchmark, folder, scratch) else [_packaged() / part.benchmark.home]
        return _load(TaskManager(include_defaults=False, include_path=places), part.task, part)
    if (path := _file_named(part.name)) is not None:
        return _load(TaskManager(include_defaults=False), str(path), part)
    manager = TaskManager()
    if part.name not in manager.all_tasks:
        raise choose("harness task", part.name, manager.all_tasks, _near(part.name, manager.all_tasks))
    return _load(manager, part.name, part)


def remark(part: HarnessTask, folder: str | None) -> str:
    """What a reader must know about the rows of ``part``."""
    if folder and part.name == "mmlu" and (there := len(benchmarks.subjects(folder))) < MMLU_SUBJECTS:
        return f"{there} of {MMLU_SUBJECTS} subjects"
    return ""


def _packaged() -> Path:
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def _load(manager: TaskManager, spec: str, part: HarnessTask) -> Loaded:
    try:
        loaded = manager.load([spec])
    except SdftError:
        raise
    except Exception as error:  # whatever the source of the data raises: no network, no such data set, no access
        reason = next(iter(str(error).strip().splitlines()), "")
        hint = "check the network and HF_TOKEN, or name a folder of local files with --benchmarks"
        raise SdftError(f"the harness cannot load {part.name}: {type(error).__name__}: {reason}", hint) from error
    groups, tasks = loaded.get("groups") or {}, loaded["tasks"]
    if part.task not in {*groups, *tasks}:
        raise UsageError(f"{part.name} stands for several tasks", f"name them instead: {','.join(sorted(tasks))}")
    if not part.runs_code and any(getattr(task, "UNSAFE_CODE", False) for task in tasks.values()):
        raise UsageError(
            f"{part.name} would run generated code outside the sandbox", "of such tasks, only humaneval is supported"
        )
    if part.task in groups and not groups[part.task].has_aggregation:
        raise UsageError(f"the group {part.name} reports no score", f"name its tasks: {','.join(sorted(tasks))}")
    _check_metric(part, list(tasks.values()))
    return Loaded(manager, groups.get(part.task) or tasks[part.task])


def _check_metric(part: HarnessTask, tasks: Sequence[Task]) -> None:
    """Refuse a metric that no task has, if they list theirs: better now than after the evaluation."""
    listed = [entry["metric"] for task in tasks for entry in getattr(task.config, "metric_list", None) or []]
    name = (part.metric or "").partition(":")[0]
    if name and name not in listed and listed and all(isinstance(metric, str) for metric in listed):
        raise choose("metric", name, sorted(set(listed)))


def _file_named(name: str) -> Path | None:
    """The packaged file of a single task, if it is named after the task."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for path in sorted(_packaged().glob(f"**/{name}.yaml")) if name.replace("_", "").isalnum() else ():
        if load_yaml(path, resolve_func=False).get("task") == name:
            return path
    return None


def _near(name: str, names: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "`lm-eval ls tasks` lists them all"


# --- our own task files ----------------------------------------------------------------------------------------------


def _written(benchmark: Benchmark, folder: str | None, scratch: Path) -> bool:
    """Write the task files that ``benchmark`` needs besides the harness's own; False if it needs none."""
    files = dict(_files(benchmark, folder))
    for name, lines in files.items():
        (scratch / f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return bool(files)


def _files(benchmark: Benchmark, folder: str | None) -> Iterator[tuple[str, list[str]]]:
    """(name, lines) of each file, in YAML; JSON is valid YAML."""
    home = _packaged() / benchmark.home
    if benchmark.name == "mmlu" and folder:
        names = [f"mmlu_{subject}" for subject in benchmarks.subjects(folder)]
        for name in names:
            lines = _from(benchmark="mmlu", folder=folder, subject=name.removeprefix("mmlu_"))
            yield name, [*_laid_over(home / f"{name}.yaml", name), *lines]
        weighted = '[{"metric": "acc", "weight_by_size": true}]'
        yield "mmlu", ["group: mmlu", f"task: {json.dumps(names)}", f"aggregate_metric_list: {weighted}"]
    elif folder or benchmark.runs_code:
        above = HUMANEVAL if benchmark.runs_code else _file_of(home, benchmark.task)
        lines = _from(benchmark=benchmark.name, folder=folder) if folder else []
        yield benchmark.task, [*_laid_over(above, benchmark.task), *lines]


def _laid_over(file: Path, task: str) -> list[str]:
    return [f"include: {json.dumps(str(file))}", f"task: {task}"]


def _from(**rows: str) -> list[str]:
    """Where the rows come from. Local files have no training split: few-shot examples come from the split itself."""
    return [
        "custom_dataset: !function sdft_cli.harness.benchmarks.dataset",
        f"dataset_kwargs: {json.dumps(rows)}",
        "training_split: null",
    ]


def _file_of(home: Path, task: str) -> Path:
    """The harness's file for a benchmark's task."""
    for name in (f"{task}.yaml", "default.yaml"):
        if (home / name).is_file():
            return home / name
    raise UsageError(f"this version of the harness has no {task} in {home}", "pip install 'sdft-cli[eval]'")
