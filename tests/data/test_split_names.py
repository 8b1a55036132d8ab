"""Split names in file names: the keywords of the hub's loader, compared with its own patterns; ambiguous names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdft_cli.data.split_names import EVAL, Ambiguous, split_of_name, splits_of_files, splits_of_keys

NAMES = {
    "train": "train", "Train": "train", "gsm_train": "train", "train_sft-00000-of-00003": "train",
    "training_data": "train", "auxiliary_train": "train", "my.train.v2": "train", "trainset": "train",
    "TrainData": "train", "train 2": "train", "train2024": "train",
    "dev": "validation", "valid": "validation", "val-1": "validation", "validation_matched": "validation",
    "math_dev": "validation", "test": "test", "test_gen": "test", "test_sft-00000-of-00001": "test",
    "abstract_algebra_test": "test", "testing": "test", "testset": "test", "eval": EVAL, "evaluation-data": EVAL,
    "ood": "ood", "facts-ood": "ood",
    "latest": None, "contest": None, "testament": None, "protest_songs": None, "trains": None, "devices": None,
    "valley": None, "evaluate": None, "medieval": None, "strain": None, "rows": None, "": None, "good": None,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_keyword_counts_between_delimiters(name: str) -> None:
    assert split_of_name(name) == NAMES[name]


@pytest.mark.parametrize("name", ["train_test", "train-dev", "dev_test", "train_eval", "test train", "TrainTest"])
def test_a_name_of_two_splits_is_ambiguous(name: str) -> None:
    with pytest.raises(Ambiguous):
        split_of_name(name)


@pytest.mark.parametrize("name", [n for n in NAMES if n and n == n.lower() and "set" not in n and "ood" not in n])
def test_the_hubs_loader_finds_the_same_split(name: str, tmp_path: Path) -> None:
    from datasets.data_files import get_data_patterns

    (tmp_path / f"{name}.jsonl").write_text(json.dumps({"a": 1}))
    found = {str(split) for split in get_data_patterns(str(tmp_path))}
    ours = split_of_name(name)
    assert found == {"test" if ours == EVAL else ours or "train"}  # what names no split is for training, there


FILES = {
    "TRACE": (["c/train", "c/eval", "c/test"], ["train", "validation", "test"]),
    "eval of its own": (["c/train", "c/eval"], ["train", "test"]),
    "eval in another folder": (["c/a/test", "c/b/eval"], ["test", "test"]),
    "folders": (["c/train/1", "c/test/1", "c/eval/x/1"], ["train", "test", "validation"]),
    "a file and its folder agree": (["c/test/algebra_test"], ["test"]),
    "none": (["c/rows", "c/more/latest"], [None, None]),
    "the source itself": (["test/rows", "train/rows"], ["test", "train"]),
    "sources told apart": (["gsm_train/rows", "gsm_test/rows"], ["train", "test"]),
    "a source whose name only ends so": (["llm-eval/rows"], [None]),
    "the file before the source": (["test/train"], ["train"]),
}


@pytest.mark.parametrize("case", FILES)
def test_files_and_folders(case: str) -> None:
    names, splits = FILES[case]
    assert splits_of_files(names) == splits


def test_folders_that_disagree_are_ambiguous() -> None:
    for name in ("c/test/train", "c/train/dev/x", "c/train_test"):
        (found,) = splits_of_files([name])
        assert isinstance(found, Ambiguous) and len(found.splits) == 2


def test_eval_beside_a_file_that_was_given_for_testing_is_for_validation() -> None:
    assert splits_of_files(["c/eval"], has_test=True) == ["validation"]
    assert splits_of_keys(["train", "eval"]) == ["train", "test"]
    assert splits_of_keys(["train", "eval", "test"]) == ["train", "validation", "test"]
