"""The prior suite's six benchmarks: the harness task and metric of each, and how its own files are read.

``--benchmarks DIR`` names a folder with one subfolder per benchmark, its files as their authors publish them::

    DIR/hellaswag/hellaswag_val.jsonl           or the only *.jsonl there
    DIR/truthfulqa/mc_task.json
    DIR/mmlu/dev/*_dev.csv, DIR/mmlu/test/*_test.csv
    DIR/ifeval/input_data.jsonl
    DIR/winogrande/dev.jsonl                    with dev-labels.lst, if the rows lack their answers
    DIR/humaneval/HumanEval.jsonl.gz            or unpacked

The rows are converted to those of the hub's data sets, so that the harness's own prompts fit them. MMLU may hold any of
its subjects; those that are there are scored. Nothing is downloaded here (without a folder, the harness uses the hub).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdft_cli.errors import UsageError
from sdft_cli.types import Json

if TYPE_CHECKING:
    from datasets import DatasetDict

Row = dict[str, Json]
Splits = dict[str, list[Row]]
#: Subjects in all of MMLU.
MMLU_SUBJECTS = 57


@dataclass(frozen=True)
class Benchmark:
    """``task`` is the harness's name for it, ``metric`` the key in its results; ``read`` maps the folder to splits.

    ``home`` is where the harness keeps the task, below its folder of tasks; ``files`` names what ``read`` looks for.
    """

    name: str
    task: str
    metric: str
    home: str
    files: str
    read: Callable[[Path], Splits]
    runs_code: bool = False

    def folder(self, benchmarks: str) -> Path:
        return Path(benchmarks).expanduser() / self.name


def dataset(benchmark: str, folder: str, subject: str | None = None, **_: object) -> DatasetDict:
    """The harness calls this for its data (``custom_dataset``): the rows by split. Further keywords are its own."""
    import datasets

    place = BENCHMARKS[benchmark].folder(folder)
    if subject is None:
        splits = BENCHMARKS[benchmark].read(place)
    else:
        splits = {split: _subject(place, split, subject) for split in ("dev", "test")}
    return datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in splits.items()})


def subjects(benchmarks: str) -> list[str]:
    """The subjects of MMLU that have a test file."""
    place = BENCHMARKS["mmlu"].folder(benchmarks) / "test"
    return sorted(path.name.removesuffix("_test.csv") for path in place.glob("*_test.csv"))


def digests(benchmarks: str, names: Sequence[str]) -> dict[str, str]:
    """A digest of each benchmark's rows, so that scores on different files are told apart.

    Reads every file, before a model is loaded; raises `UsageError` for what is missing or malformed.
    """
    if names and not Path(benchmarks).expanduser().is_dir():
        raise UsageError(f"--benchmarks {benchmarks}: no such folder", _layout())
    return {name: _digest(BENCHMARKS[name].read(BENCHMARKS[name].folder(benchmarks))) for name in names}


def _digest(rows: Splits) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def _layout() -> str:
    return f"the folder must hold {', '.join(f'{b.name}/{b.files}' for b in BENCHMARKS.values())}"


# --- the files, as their authors publish them --------------------------------------------------------------------


def _hellaswag(folder: Path) -> Splits:
    rows = _json_lines(
        _only(folder, "*val*.jsonl", "*.jsonl"), ("activity_label", "ctx_a", "ctx_b", "endings", "label")
    )
    return {"validation": [{**row, "label": str(row["label"])} for row in rows]}


def _truthfulqa(folder: Path) -> Splits:
    path = _only(folder, "mc_task.json")
    rows = _parsed(path, path.read_text(encoding="utf-8"))
    names = ("mc1_targets", "mc2_targets")
    converted = []
    for i, row in enumerate(rows if isinstance(rows, list) else [rows]):
        _need(row, ("question", *names), f"{path}, entry {i + 1}")
        converted.append({"question": row["question"], **{name: _targets(row[name]) for name in names}})
    return {"validation": converted}


def _targets(choices: Mapping[str, int]) -> Row:
    return {"choices": list(choices), "labels": list(choices.values())}


def _mmlu(folder: Path) -> Splits:
    splits: Splits = {}
    for split in ("dev", "test"):
        paths = sorted((folder / split).glob(f"*_{split}.csv"))
        if not paths:
            raise UsageError(f"no *_{split}.csv in {folder / split}", _layout())
        splits[split] = [row for path in paths for row in _subject(folder, split, path.name.rpartition("_")[0])]
    return splits


def _subject(folder: Path, split: str, subject: str) -> list[Row]:
    """One CSV file: question, four choices, and the answer as a letter (without a header) or a number (with one)."""
    path = folder / split / f"{subject}_{split}.csv"
    if not path.is_file():
        raise UsageError(f"{path} is missing", "every subject of MMLU needs a file in dev/ and one in test/")
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    if rows and rows[0][:1] == ["question"]:
        rows = rows[1:]
    questions = []
    for number, row in enumerate(rows, start=1):
        answer = _ANSWERS.get(row[-1].strip()) if len(row) == 6 else None
        if answer is None:
            raise UsageError(f"{path}: row {number} is not a question, four choices and an answer A-D or 0-3")
        questions.append({"question": row[0], "subject": subject, "choices": row[1:5], "answer": answer})
    return questions


_ANSWERS = {**{letter: i for i, letter in enumerate("ABCD")}, **{str(i): i for i in range(4)}}


def _ifeval(folder: Path) -> Splits:
    rows = _json_lines(_only(folder, "input_data.jsonl", "*.jsonl"), ("key", "prompt", "instruction_id_list", "kwargs"))
    return {"train": rows}  # the hub's data set has no other split


def _winogrande(folder: Path) -> Splits:
    path = _only(folder, "dev.jsonl")
    rows = _json_lines(path, ("sentence", "option1", "option2"))
    if not all("answer" in row for row in rows):
        labels = _only(folder, "dev-labels.lst").read_text(encoding="utf-8").split()
        if len(labels) != len(rows):
            raise UsageError(
                f"{folder}: {len(rows)} rows and {len(labels)} labels", "take both files from the same release"
            )
        rows = [{**row, "answer": label} for row, label in zip(rows, labels, strict=True)]
    return {"validation": rows}


def _humaneval(folder: Path) -> Splits:
    path = _only(folder, "HumanEval.jsonl.gz", "HumanEval.jsonl")
    return {"test": _json_lines(path, ("task_id", "prompt", "canonical_solution", "test", "entry_point"))}


def _only(folder: Path, *patterns: str) -> Path:
    """The only file in ``folder`` that matches the first pattern with a match."""
    for pattern in patterns:
        files = sorted(folder.glob(pattern))
        if len(files) == 1:
            return files[0]
        if files:
            names = ", ".join(path.name for path in files)
            raise UsageError(f"{folder} holds several candidates: {names}", f"leave only one {pattern} there")
    raise UsageError(f"no {' or '.join(patterns)} in {folder}", _layout())


def _json_lines(path: Path, fields: tuple[str, ...]) -> list[Row]:
    rows = []
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    row = _parsed(path, line, number)
                    _need(row, fields, f"{path}:{number}")
                    rows.append(row)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "download it again") from error
    if not rows:
        raise UsageError(f"{path} has no rows", "download it again")
    return rows


def _parsed(path: Path, text: str, number: int = 1) -> Json:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}:{number}: not JSON: {error}", "download it again") from error


def _need(row: Json, fields: tuple[str, ...], where: str) -> None:
    missing = [name for name in fields if not isinstance(row, dict) or name not in row]
    if missing:
        raise UsageError(f"{where}: {missing[0]!r} is missing", f"a row must have {', '.join(fields)}")


_ALL = (
    Benchmark("hellaswag", "hellaswag", "acc,none", "hellaswag", "hellaswag_val.jsonl", _hellaswag),
    Benchmark("truthfulqa", "truthfulqa_mc1", "acc,none", "truthfulqa", "mc_task.json", _truthfulqa),
    Benchmark("mmlu", "mmlu", "acc,none", "mmlu/default", "{dev,test}/*.csv", _mmlu),
    Benchmark("ifeval", "ifeval", "inst_level_loose_acc,none", "ifeval", "input_data.jsonl", _ifeval),
    Benchmark("winogrande", "winogrande", "acc,none", "winogrande", "dev.jsonl", _winogrande),
    Benchmark("humaneval", "humaneval", "pass@1,create_test", "humaneval", "HumanEval.jsonl.gz", _humaneval, True),
)
#: By our short name, in the order of the paper's table.
BENCHMARKS = {benchmark.name: benchmark for benchmark in _ALL}
