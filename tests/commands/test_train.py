"""The `train` command from outside: a run's files, refusals, and SIGKILL followed by --resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdft_cli.runs import results
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StageId

FEW = [
    "max_steps=8",
    "batch=4",
    "lr=1e-3",
    "checkpoint_every=2",
    "eval_every=4",
    "eval_limit=4",
    "evaluation.limit=4",
]
TASKS = "micro-tooluse,micro-science"


def command(model: Path, data: Path, out: Path, *more: str, tasks: str = TASKS, sets: list[str] = FEW) -> list[str]:
    words = [sys.executable, "-m", "sdft_cli", "train", "--tasks", tasks, "--model", str(model), "--data", str(data)]
    words += ["--suite", "micro", "--out", str(out), "--set", "evaluation.max_new_tokens=4"]
    for text in [*sets, "sampler.max_new_tokens=6", "threads=1"]:
        words += ["--set", text]
    return [*words, *more]


def call(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=110)


def weights(run: Path, stage: str) -> dict[str, torch.Tensor]:
    (folder,) = (run / "stages" / stage).glob("step-*")
    (file,) = (folder / "model").glob("*.safetensors")
    return load_file(file)


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tiny_model: Path, micro_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two stages."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = call(command(tiny_model, micro_data, out, "--json"))
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"runs"}  # one JSON object and nothing else
    return out


def test_a_run_leaves_what_the_design_promises(whole: Path) -> None:
    assert {"recipe.json", "environment.json", "metrics.jsonl", "latest", "done.json"} <= {
        p.name for p in whole.iterdir()
    }
    (stage,) = (whole / "stages" / "01-micro-tooluse").iterdir()
    assert stage.name == "step-000008" and {p.name for p in stage.iterdir()} == {"model", "done.json"}
    assert (stage / "model" / "config.json").is_file() and (stage / "model" / "tokenizer.json").is_file()
    scores = json.loads((whole / "evals" / "02-micro-science" / "scores.json").read_text())
    assert set(scores["tasks"]) == {"micro-tooluse", "micro-science"} and scores["suite"]["name"] == "micro"
    loaded = results.load_run(whole)
    assert len(loaded.matrix) == 3 and loaded.finished and loaded.prior is not None and len(loaded.prior) == 3
    steps = [r for r in rows(whole) if r["kind"] == "step"]
    assert [r["global_step"] for r in steps] == list(range(1, 17))
    assert {"eval", "ending", "model", "note", "skip_first"} == {r["kind"] for r in rows(whole)} - {
        "step"
    }  # of the warm-up
    assert [(r["stage"], r["model_of"], r["why"]) for r in loaded.endings] == [(1, 8, "last step"), (2, 8, "last step")]


# runs are killed in test_kill.py too, at moments nobody chose, and adapters are resumed to the bit in test_lora_runs.py
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 4])
def test_sigkill_in_stage_2_then_resume_equals_the_uninterrupted_run(
    whole: Path, tiny_model: Path, micro_data: Path, tmp_path: Path, rank: int
) -> None:
    sets = [*FEW, f"rank={rank}"] if rank else FEW
    reference = whole
    if rank:
        reference = tmp_path / "reference"
        assert call(command(tiny_model, micro_data, reference, sets=sets)).returncode == 0
    out = tmp_path / "run"
    words = command(tiny_model, micro_data, out, sets=sets)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        log = out / "metrics.jsonl"
        if log.is_file() and '"stage": 2, "task": "micro-science", "step": 5,' in log.read_text():
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "done.json").exists()
    again = call([*words, "--resume"])
    assert again.returncode == 0, again.stderr
    assert "resumed at stage 2" in again.stderr
    for stage in ("01-micro-tooluse", "02-micro-science"):
        mine, theirs = weights(out, stage), weights(reference, stage)
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[n], theirs[n]) for n in mine)
    logged = [(r["kind"], r["stage"], r["step"]) for r in rows(out)]
    assert logged == [(r["kind"], r["stage"], r["step"]) for r in rows(reference)]
    assert results.load_run(out).matrix == results.load_run(reference).matrix


def test_continue_adds_rows_and_columns(whole: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = results.load_run(run).matrix
    words = [sys.executable, "-m", "sdft_cli", "train", "--continue", str(run), "--tasks", "micro-medical"]
    done = call(words)
    assert done.returncode == 0, done.stderr
    after = results.load_run(run)
    assert after.tasks == ["micro-tooluse", "micro-science", "micro-medical"] and len(after.matrix) == 4
    assert [row[:2] for row in after.matrix[:3]] == before
    assert all(row[2] is not None for row in after.matrix)  # earlier stages were measured on the new task too


def test_a_second_run_into_the_folder_is_refused(whole: Path, tiny_model: Path, micro_data: Path) -> None:
    stamp = (whole / "recipe.json").stat().st_mtime_ns
    done = call(command(tiny_model, micro_data, whole))
    assert done.returncode == 2 and "already holds a run" in done.stderr and "--resume" in done.stderr
    assert (whole / "recipe.json").stat().st_mtime_ns == stamp


def test_resuming_a_finished_run_does_nothing(whole: Path, tiny_model: Path, micro_data: Path) -> None:
    before = (whole / "metrics.jsonl").read_bytes()
    done = call(command(tiny_model, micro_data, whole, "--resume"))
    assert done.returncode == 0 and (whole / "metrics.jsonl").read_bytes() == before


def test_doctored_rows_are_refused_or_listed(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(micro_data, data)
    file = data / "micro-tooluse" / "train.jsonl"
    lines = file.read_text().splitlines()
    empty, long = json.loads(lines[0]), json.loads(lines[1])
    empty["demonstration"] = ""
    long["prompt"][0]["content"] = "lamp " * 20_000
    file.write_text("\n".join([json.dumps(empty), json.dumps(long), '{"id": "broken', *lines[3:]]) + "\n")
    out = tmp_path / "run"
    done = call(command(tiny_model, data, out, tasks="micro-tooluse"))
    assert done.returncode == 2 and not out.exists()
    assert "train.jsonl" in done.stderr and "--on-bad-row drop" in done.stderr
    done = call(command(tiny_model, data, out, "--on-bad-row", "drop", "--dry-run", tasks="micro-tooluse"))
    assert done.returncode == 0 and not out.exists(), done.stderr
    for reason in ("broken JSON", "demonstration", "over the limit"):
        assert sum(reason in line for line in done.stderr.splitlines()) == 1, done.stderr
    assert "3 rows dropped" in done.stdout and "477 train" in done.stdout


def test_lora_runs_save_adapters(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    sets = [*FEW, "rank=4", "max_steps=2"]
    done = call(command(tiny_model, micro_data, out, tasks="micro-tooluse", sets=sets))
    assert done.returncode == 0, done.stderr
    names = set(weights(out, "01-micro-tooluse"))
    assert names and all("lora_" in n and "teacher" not in n for n in names)
    final = Run.open(out).checkpoints.of(StageId(1, "micro-tooluse")).finished()
    assert final is not None and (final.model / "adapter_config.json").is_file()
