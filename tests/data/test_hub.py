"""Hub datasets: the real loading code of `datasets` on local folders, downloaded and streamed; without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdft_cli.commands.prepare import prepare
from sdft_cli.data import hub
from sdft_cli.data.manifest import read_manifest
from sdft_cli.errors import UsageError
from sdft_cli.types import PrepareOptions

WORDS = "north river seven lamps copper train winter paper orange signal market tower glass engine valley".split()


def rows(n: int, start: int = 0) -> list[dict[str, object]]:
    return [
        {"question": f"item {i}: {WORDS[i % 15]} {WORDS[i * i % 15]}?", "answer": i} for i in range(start, start + n)
    ]


@pytest.fixture
def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the hub serves it: one file per split."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "made" / "quiz"
    folder.mkdir(parents=True)
    for split, some in (("train", rows(40)), ("test", rows(10, 40))):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return folder


@pytest.mark.parametrize("large", [1 << 40, -1], ids=["whole", "streamed"])
def test_every_split_becomes_rows(hosted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(hub, "LARGE", large)
    data = tmp_path / "data"
    (summary,) = prepare(["quiz"], {"quiz": [Path(f"hf:{hosted}")]}, data, PrepareOptions())
    assert summary["rows"] == {"train": 38, "validation": 2, "test": 10}
    manifest = read_manifest(data / "quiz")
    assert [source["file"] for source in manifest["sources"]] == ["hf:quiz/test.jsonl", "hf:quiz/train.jsonl"]
    assert manifest["grader"]["name"] == "number"
    assert str(tmp_path) not in json.dumps(manifest)


def test_one_split_alone(hosted: Path, tmp_path: Path) -> None:
    for split in ("train", "train[:40]"):
        sources = {"quiz": [Path(f"hf:{hosted}@{split}")]}
        (summary,) = prepare(["quiz"], sources, tmp_path / "data", PrepareOptions())
        assert summary["rows"] == {"train": 30, "validation": 2, "test": 8}


def test_known_tasks_read_from_the_hub_too(hosted: Path, tmp_path: Path) -> None:
    science = [
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": f"q{i}\n\nA: 1\nB: 2"}],
            "answer": "A",
        }
        for i in range(20)
    ]
    (hosted / "train.jsonl").unlink()
    (hosted / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in science))
    (summary,) = prepare(["science"], {"science": [Path(f"hf:{hosted}")]}, tmp_path / "data", PrepareOptions())
    assert sum(summary["rows"].values()) == 20


def test_a_dataset_that_cannot_be_loaded_is_one_error(hosted: Path, tmp_path: Path) -> None:
    for source in ("hf:nobody/nothing-here", f"hf:{hosted}@later", f"hf:{hosted}:odd"):
        with pytest.raises(UsageError, match="cannot load") as error:
            prepare(["quiz"], {"quiz": [Path(source)]}, tmp_path / "data", PrepareOptions())
        assert "hf:ORG/NAME" in error.value.hint
        assert not (tmp_path / "data").exists()


def test_names_are_parsed() -> None:
    assert hub.parse(Path("hf:org/name")) == hub.HubDataset("org/name")
    assert hub.parse(Path("hf:org/name:main@train[:10]")) == hub.HubDataset("org/name", "main", "train[:10]")
    assert hub.HubDataset("org/name", "main").label == "hf:org--name--main"
    with pytest.raises(UsageError, match="not a dataset of the hub"):
        hub.parse(Path("hf:@train"))


def test_without_hub_datasets_sources_are_left_unchanged() -> None:
    sources = {"a": [Path("x.jsonl")]}
    with hub.downloaded(sources) as same:
        assert same is sources


@pytest.mark.parametrize("large", [1 << 40, -1], ids=["whole", "streamed"])
def test_labels_images_decimals_and_splits_by_other_names(
    hosted: Path, tmp_path: Path, monkeypatch, large: int
) -> None:
    import datasets as d

    monkeypatch.setattr(hub, "LARGE", large)
    features = d.Features(
        {
            "question": d.Value("string"),
            "image": d.Image(),
            "answer": d.ClassLabel(names=["no", "yes"]),
            "on": d.Value("timestamp[s]"),
        }
    )
    for file in hosted.iterdir():
        file.unlink()
    for split, start, count in (("train_sft", 0, 30), ("test_sft", 30, 10), ("dev", 40, 4)):
        some = [{**row, "image": None, "answer": i % 2, "on": 0} for i, row in enumerate(rows(count, start))]
        some[0]["image"] = {"bytes": b"\x89PNG\xff", "path": None}
        d.Dataset.from_list(some, features=features).to_parquet(str(hosted / f"{split}-00000-of-00001.parquet"))
    (summary,) = prepare(["quiz"], {"quiz": [Path(f"hf:{hosted}")]}, tmp_path / "data", PrepareOptions())
    assert summary["rows"] == {"train": 29, "validation": 3, "test": 9}
    assert summary["filtered"] == {"holds an image, a sound or a video": 3}
    first = json.loads((tmp_path / "data" / "quiz" / "test.jsonl").read_text().splitlines()[0])
    assert first["answer"] == "yes"


def test_one_of_several_configurations_must_be_named(hosted: Path, tmp_path: Path) -> None:
    configs = "".join(
        f"- config_name: {name}\n  data_files: {file}.jsonl\n" for name, file in (("main", "train"), ("more", "test"))
    )
    card = f"---\nconfigs:\n{configs}---\n"
    (hosted / "README.md").write_text(card)
    with pytest.raises(UsageError, match="has several configurations: main, more") as error:
        prepare(["quiz"], {"quiz": [Path(f"hf:{hosted}")]}, tmp_path / "data", PrepareOptions())
    assert error.value.hint == f"choose one: --source TASK=hf:{hosted}:main"
    (summary,) = prepare(["quiz"], {"quiz": [Path(f"hf:{hosted}:more")]}, tmp_path / "data", PrepareOptions())
    assert sum(summary["rows"].values()) == 10
