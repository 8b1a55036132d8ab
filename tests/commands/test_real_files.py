"""From raw files in the sources' formats to a finished run: too short to learn anything, but it must run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.real_model import make_model

from sdft_cli.commands.datasets import show
from sdft_cli.commands.prepare import prepare
from sdft_cli.data.manifest import read_manifest
from sdft_cli.types import PrepareOptions

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data files (../shared/data) are not here")
TASKS = ("tooluse", "science", "medical")
SOURCES = {"tooluse": "toolalpaca/eval_simulated.json", "science": "sciknoweval", "medical": "huatuo/demo_data.json"}


def sdft(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sdft_cli", *words], check=False, capture_output=True, text=True, timeout=115
    )


#: what one command makes of each source: (task, source, rows by split, rows left out by design)
ALONE = [
    ("tooluse", "toolalpaca", {"train": 51, "validation": 3, "test": 14}, {"gold arguments hold a $ placeholder": 32}),
    ("tooluse", "sdft_tooluse/eval_68.json", {"train": 51, "validation": 3, "test": 14}, {}),
    ("science", "sciknoweval", {"train": 1575, "validation": 105, "test": 420}, {"not multiple choice": 300}),
    ("science", "sdft_science", {"train": 75, "validation": 5, "test": 20}, {}),
    ("medical", "huatuo", {"train": 148, "validation": 10, "test": 40}, {}),
    ("knowledge", "disasters_2025/data.json", {"corpus": 9}, {}),
    (
        "knowledge",
        "disasters_2025",
        {"train": 64, "validation": 4, "test": 17, "corpus": 9},
        {"asks what a test row asks": 1, "repeats another row": 4},
    ),
]


@pytest.mark.parametrize(("task", "source", "rows", "left_out"), ALONE, ids=[f"{t}={s}" for t, s, _, _ in ALONE])
def test_one_source_alone(task: str, source: str, rows: dict, left_out: dict, tmp_path: Path) -> None:
    sources = {task: [SHARED / source]}
    (summary,) = prepare([task], sources, tmp_path, PrepareOptions(), model="micro")
    assert (summary["rows"], summary["filtered"], summary["dropped"]) == (rows, left_out, [])
    if "train" in rows:
        assert summary["lengths"]["tokens"]["train"]["student"]["max"] > 50
    (shown,) = show(tmp_path, task, None, None, None, None)
    assert ("student" in shown) == ("train" in rows)
    manifest = read_manifest(tmp_path / task)
    assert all(len(source["sha256"]) == 64 for source in manifest["sources"] if "left_out" not in source)
    assert str(SHARED) not in json.dumps(manifest)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "data"
    sources = [w for task, path in SOURCES.items() for w in ("--source", f"{task}={SHARED / path}")]
    done = sdft(
        "prepare", "--tasks", ",".join(TASKS), *sources, "--data", str(folder), "--demonstrations", "answer", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert [t["task"] for t in json.loads(done.stdout)["tasks"]] == list(TASKS)
    return folder


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [
        message["content"]
        for task in TASKS
        for line in (data / task / "train.jsonl").read_text().splitlines()[:60]
        for message in json.loads(line)["prompt"]
    ]
    return make_model(tmp_path_factory.mktemp("model"), texts)


def test_the_manifest_says_that_demonstrations_are_gold_answers(data: Path) -> None:
    manifest = json.loads((data / "tooluse" / "manifest.json").read_text())
    assert manifest["demonstrations"] == "answer"
    assert any("demonstration" in note for note in manifest["notes"])


@pytest.mark.slow
def test_train_and_eval_run_to_a_table(data: Path, model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sets = ["max_steps=2", "batch=2", "sampler.max_new_tokens=8", "evaluation.max_new_tokens=8", "evaluation.limit=3"]
    words = [w for text in [*sets, "eval_limit=2"] for w in ("--set", text)]
    where = ["--tasks", ",".join(TASKS), "--data", str(data), "--model", str(model), "--out", str(run)]
    plan = sdft("train", *where, *words, "--dry-run", "--json")
    assert plan.returncode == 0, plan.stderr
    longest = json.loads(plan.stdout)["stages"][0]["teacher_prompt_tokens"]["max"]
    assert longest > 1000  # real prompts: a thousand tokens and more, none cut off
    done = sdft("train", *where, *words)
    assert done.returncode == 0, done.stderr
    for task in TASKS:
        assert f"{TASKS.index(task) + 1} " in done.stdout and task in done.stdout
    scored = sdft("eval", str(run), "--suite", "new", "--limit", "2", "--no-cache", "--json")
    assert scored.returncode == 0, scored.stderr
    tasks = json.loads(scored.stdout)["tasks"]
    assert set(tasks) == set(TASKS) and all(t["n"] + t["unscored"] == 2 for t in tasks.values())
    assert "containment" in tasks["medical"]["note"]
