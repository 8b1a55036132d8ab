"""The benchmarks' own file formats become the hub's rows; what is missing or malformed is named."""

import json
from pathlib import Path

import pytest
from support import benchmark_files

from sdft_cli.errors import UsageError
from sdft_cli.harness import benchmarks


def read(folder: Path, name: str) -> benchmarks.Splits:
    benchmark = benchmarks.BENCHMARKS[name]
    return benchmark.read(benchmark.folder(str(folder)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return benchmark_files.write(tmp_path)


def test_rows_have_the_hubs_columns(folder: Path) -> None:
    [first, *_] = read(folder, "truthfulqa")["validation"]
    assert first["mc1_targets"] == {"choices": ["Eight legs.", "No legs.", "A hundred legs."], "labels": [1, 0, 0]}
    assert {row["label"] for row in read(folder, "hellaswag")["validation"]} == {"0", "1", "2", "3"}
    assert [len(split) for split in read(folder, "mmlu").values()] == [5, 5]
    assert read(folder, "mmlu")["test"][3] == {
        "question": "Which is a planet? (0)",
        "subject": "astronomy",
        "choices": ["Sirius", "Mars", "the Moon", "Vega"],
        "answer": 1,
    }
    assert benchmarks.subjects(str(folder)) == ["anatomy", "astronomy"]
    assert set(read(folder, "ifeval")) == {"train"} and set(read(folder, "humaneval")) == {"test"}


def test_mmlu_as_its_authors_publish_it(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    theirs = benchmark_files.write(tmp_path_factory.mktemp("letters"), letters=True)
    assert read(theirs, "mmlu") == read(folder, "mmlu")
    assert benchmarks.digests(str(theirs), ["mmlu"]) == benchmarks.digests(str(folder), ["mmlu"])


def test_winogrande_takes_answers_from_the_rows_or_from_the_labels(folder: Path) -> None:
    from_labels = read(folder, "winogrande")["validation"]
    assert [row["answer"] for row in from_labels] == ["1", "1", "1"]
    benchmark_files.lines(folder / "winogrande" / "dev.jsonl", [{**row, "answer": "2"} for row in from_labels])
    assert {row["answer"] for row in read(folder, "winogrande")["validation"]} == {"2"}


def test_other_splits_in_the_folder_do_not_matter(folder: Path) -> None:
    before = read(folder, "hellaswag")
    benchmark_files.lines(folder / "hellaswag" / "hellaswag_train.jsonl", [])
    assert read(folder, "hellaswag") == before
    (folder / "hellaswag" / "hellaswag_train.jsonl").unlink()
    (folder / "hellaswag" / "hellaswag_val.jsonl").rename(folder / "hellaswag" / "thousand.jsonl")
    assert read(folder, "hellaswag") == before


def test_humaneval_may_be_unpacked(folder: Path) -> None:
    packed = read(folder, "humaneval")
    (folder / "humaneval" / "HumanEval.jsonl.gz").unlink()
    benchmark_files.lines(folder / "humaneval" / "HumanEval.jsonl", benchmark_files.HUMANEVAL)
    assert read(folder, "humaneval") == packed


def test_a_digest_depends_on_the_rows_alone(folder: Path) -> None:
    before = benchmarks.digests(str(folder), list(benchmarks.BENCHMARKS))
    path = folder / "ifeval" / "input_data.jsonl"
    path.write_text(path.read_text().replace(": ", " :   "))  # the same JSON
    assert benchmarks.digests(str(folder), list(benchmarks.BENCHMARKS)) == before
    path.write_text(path.read_text().replace("No commas.", "No commas!"))
    after = benchmarks.digests(str(folder), list(benchmarks.BENCHMARKS))
    assert {name for name in before if before[name] != after[name]} == {"ifeval"}


FAULTS = {
    "no folder": ("hellaswag", lambda f: None, "no such folder"),
    "no file": ("truthfulqa", lambda f: (f / "truthfulqa" / "mc_task.json").unlink(), "no mc_task.json in"),
    "two files": ("hellaswag", lambda f: (f / "hellaswag" / "my_val.jsonl").write_text("{}"), "several candidates"),
    "no JSON": ("ifeval", lambda f: (f / "ifeval" / "input_data.jsonl").write_text("{}\n{"), "'key' is missing"),
    "broken JSON": ("ifeval", lambda f: (f / "ifeval" / "input_data.jsonl").write_text("{"), "input_data.jsonl:1: not"),
    "empty": ("ifeval", lambda f: (f / "ifeval" / "input_data.jsonl").write_text("\n"), "has no rows"),
    "not packed": ("humaneval", lambda f: (f / "humaneval" / "HumanEval.jsonl.gz").write_bytes(b"x"), "cannot be read"),
    "labels": ("winogrande", lambda f: (f / "winogrande" / "dev-labels.lst").write_text("1\n"), "3 rows and 1 labels"),
    "no dev": ("mmlu", lambda f: (f / "mmlu" / "dev" / "anatomy_dev.csv").rename(f / "x"), ""),
    "columns": ("mmlu", lambda f: (f / "mmlu" / "test" / "anatomy_test.csv").write_text("a,b,c\n"), "row 1 is not"),
    "answer": (
        "mmlu",
        lambda f: (f / "mmlu" / "test" / "anatomy_test.csv").write_text("q,a,b,c,d,E\n"),
        "row 1 is not",
    ),
    "no tests": ("mmlu", lambda f: [p.unlink() for p in (f / "mmlu" / "test").glob("*")], "no *_test.csv"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(folder: Path, fault: str) -> None:
    name, spoil, message = FAULTS[fault]
    spoil(folder)
    place = folder / "nowhere" if fault == "no folder" else folder
    if fault == "no dev":  # subjects are listed by their test files
        with pytest.raises(UsageError, match=r"anatomy_dev\.csv is missing"):
            benchmarks.dataset("mmlu", str(folder), "anatomy")
        return
    with pytest.raises(UsageError) as error:
        benchmarks.digests(str(place), [name])
    assert message in error.value.message and error.value.code == 2


def test_the_harness_gets_data_sets(folder: Path) -> None:
    rows = benchmarks.dataset("ifeval", str(folder), version=4.0)
    assert rows["train"][0]["kwargs"][1]["num_sentences"] == 2
    assert json.loads(json.dumps(rows["train"][1]["instruction_id_list"])) == ["change_case:english_lowercase"]
    subject = benchmarks.dataset("mmlu", str(folder), "astronomy", version=1.0)
    assert {split: len(rows) for split, rows in subject.items()} == {"dev": 2, "test": 2}
