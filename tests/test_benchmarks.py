"""The benchmarks run, and what they show still holds; most tests here are slow, as the scripts take minutes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sdft_cli.losses.divergence import KINDS

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"rollout", "teacher", "student", "loss", "backward", "optimizer", "ema"}
LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")


@pytest.fixture
def workload(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of that name, importable as it is when a script of the folder is run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import workload

    return workload


def bench(script: str, *words: object) -> str:
    """The output of a benchmark."""
    command = [sys.executable, f"benchmarks/{script}", *map(str, words)]
    return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout


def step(folder: Path, *words: object) -> dict[str, Any]:
    """The results of ``step.py``."""
    bench("step.py", "--json", folder / "step.json", *words)
    return json.loads((folder / "step.json").read_text())


def check_sides(case: dict[str, Any], names: set[str]) -> None:
    """Every side took the steps, its parts add up to them, and lengths vary within the limit."""
    assert set(case["sides"]) == names
    for name, side in case["sides"].items():
        assert set(side["parts"]) == PARTS and all(v >= 0 for v in side["parts"].values()), name
        for turn in side["turns"]:
            assert 0.7 < sum(turn["parts"].values()) / turn["seconds"] < 1.001, name
            assert len(turn["lengths"]) == case["case"]["batch"] * turn["steps"]
            assert 1 <= min(turn["lengths"]) < max(turn["lengths"]) <= case["case"]["new"], name
        assert side["beyond_bytes"] > 0 and side["tokens_per_second"] > 0


def lengths(side: dict[str, Any]) -> list[list[int]]:
    """Lengths of the completions of every turn, in order."""
    return [sorted(turn["lengths"]) for turn in side["turns"]]


@pytest.mark.parametrize("tied", [False, True])
def test_a_token_ends_the_completion_with_the_probability_of_the_case(workload: Any, tied: bool) -> None:
    """About as often, whatever came before it."""
    case = workload.Case("toy", hidden=64, inner=128, layers=2, heads=4, kv=2, vocab=2048, new=40, tied=tied)
    model, end = workload.make(case)
    assert end["wanted"] == 0.05 and end["mean"] == pytest.approx(0.05, rel=0.1)
    torch.manual_seed(1)
    ids_BL = torch.randint(0, 1000, (64, 8))
    with torch.no_grad():
        completion_BL = model.generate(ids_BL, max_new_tokens=40, do_sample=True, top_k=0)[:, 8:]
    ended_BL = completion_BL == model.config.eos_token_id
    tokens = sum((row.tolist().index(True) + 1) if row.any() else 40 for row in ended_BL)
    assert ended_BL.any(1).sum() / tokens == pytest.approx(0.05, rel=0.5)


def test_the_models_logits_depend_on_what_came_before(workload: Any) -> None:
    """Otherwise the checks of `checks.py` would be empty."""
    model = workload.make(workload.Case("toy", hidden=64, inner=128, layers=2, heads=4))[0]
    ids_BL = torch.randint(0, 1000, (2, 32))
    ids_BL[1, -1] = ids_BL[0, -1]
    with torch.no_grad():
        one, other = model(ids_BL).logits[:, -1]
    assert (one - other).std() > 0.1 * one.std()


@LINUX
@pytest.mark.slow
def test_a_step_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    words = ("--cases", "micro", "--sides", "ours", "ours-sft", "--turns", 2, "--set", "batch=8", "new=24")
    (case,) = step(tmp_path, *words, "--plot", tmp_path / "step.png")["cases"]
    check_sides(case, {"ours", "ours-sft"})
    assert case["end_probability"]["mean"] == pytest.approx(case["end_probability"]["wanted"], rel=0.1)
    ours, sft = case["sides"]["ours"], case["sides"]["ours-sft"]
    assert lengths(ours) == lengths(sft)  # SFT trains on what ours sampled
    assert sft["parts"]["teacher"] == 0 < ours["parts"]["teacher"]
    assert case["ratios"]["ours / ours-sft"]["seconds"]["median"] > 1
    assert (tmp_path / "step.png").stat().st_size > 10_000 and (tmp_path / "step.svg").exists()


@LINUX
@pytest.mark.slow
def test_every_side_and_curve_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("trl", minversion="1.16", reason="TRL is the peer to compare with: pip install -e '.[dev]'")
    names = {"ours", "trl", "ours-sft", "trl-sft", "ours-naive", "ours-prefetch"}
    results = step(tmp_path, "--quick", "--cases", "micro", "--set", "batch=8", "--scaling", "vocab", "--sides", *names)
    check_sides(results["cases"][0], names)
    assert set(results["cases"][0]["ratios"]) == {
        "trl / ours", "trl-sft / ours-sft", "ours / ours-sft", "ours-naive / ours", "ours-prefetch / ours-sft",
        "ours-prefetch / ours",
    }  # fmt: skip
    assert [row["case"]["vocab"] for row in results["scaling"]["vocab"]] == [1203, 8192, 32_768]
    assert all(set(row["sides"]) == {"ours", "trl"} for row in results["scaling"]["vocab"])
    sides = results["cases"][0]["sides"]
    assert {turn["steps"] for turn in sides["ours-prefetch"]["turns"]} == {4}
    assert lengths(sides["trl-sft"]) == lengths(sides["ours-sft"]) == lengths(sides["ours"])
    losses = ([turn["loss"] for turn in sides[name]["turns"]] for name in ("ours", "ours-naive"))
    assert next(losses) == pytest.approx(next(losses), rel=1e-3)  # these two sample the same


@LINUX
@pytest.mark.slow
def test_a_step_takes_half_of_trls_memory_at_a_large_vocabulary(tmp_path: Path) -> None:
    """Beyond the weights, at a vocabulary of 32,768. Measured: 4 times less."""
    pytest.importorskip("trl", minversion="1.16", reason="TRL is the peer to compare with: pip install -e '.[dev]'")
    results = step(tmp_path, "--cases", "vocab-32k", "--sides", "ours", "trl", "--turns", 2)
    assert results["cases"][0]["ratios"]["trl / ours"]["beyond"] >= 2


@LINUX
@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    printed = bench(
        "gpu.py", "--device", "cpu", "--tiny", "--turns", 1, "--out", tmp_path, "--only", "0.5B", "14B full"
    )
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert all(check["ok"] for check in results["checks"]) and len(results["checks"]) >= 4
    names = {"0.5B full ours", "0.5B LoRA ours", "0.5B full trl", "14B full, lean ours"}
    assert set(results["cases"]) == names and all(name in printed for name in names)
    for name, row in results["cases"].items():
        if name.endswith("ours"):
            assert row["training_flops_per_second"] > 0 and row["peak_bytes"] >= row["weights_bytes"] > 0, name


@LINUX
@pytest.mark.slow
def test_a_fused_divergence_takes_a_tenth_of_the_memory_and_no_more_time(tmp_path: Path) -> None:
    """N = 2,048 and V = 32,768. Measured: 0.04 to 0.08 of the memory, 0.3 to 0.6 of the time."""
    file = tmp_path / "divergence.json"
    bench("divergence.py", "--json", file, "--repeats", 3, "--losses", *KINDS)
    rows = json.loads(file.read_text())["rows"]
    assert [row["loss"] for row in rows] == list(KINDS)
    for row in rows:
        assert row["bytes"]["fused"] <= row["bytes"]["naive"] / 10, row
        seconds = row["cpu_seconds"]  # of one thread: wall time would depend on what else is running
        assert seconds["fused"] <= seconds["naive"] * 1.1, row  # a tenth for noise


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu_with_tiny_shapes(tmp_path: Path) -> None:
    """Ours and TRL's; it checks losses, packing and log-probs on the way."""
    told = bench("gpu.py", "--device", "cpu", "--tiny", "--only", "0.5B full", "--turns", "1", "--out", tmp_path)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert all(check["ok"] for check in found["checks"]), told
    assert set(found["cases"]) == {"0.5B full ours", "0.5B full trl"}
    assert all(case["seconds"] > 0 for case in found["cases"].values()), told


@pytest.mark.slow
def test_the_smoke_test_runs_on_a_cpu(tmp_path: Path) -> None:
    bench("smoke.py", "--device", "cpu", "--out", tmp_path, "--budget", "600", "--jobs", "2", "--only", "sdft", "sft")
    found = json.loads((tmp_path / "smoke.json").read_text())
    assert {job["status"] for job in found["jobs"].values()} == {"ok"}


@pytest.mark.slow
def test_the_evidence_on_a_real_model_runs_with_a_tiny_one(tiny_model: Path, tmp_path: Path) -> None:
    """One run of every group, with two steps a stage."""
    names = [
        "seq-sft-2e-5-s0",
        "demo-sdft-5e-5-s0",
        "one-lora-s0",
        "view-answer-s0",
        "row-turn-base-s0",
        "probe-desk-triage",
    ]
    told = bench(
        "evidence.py", "--model", tiny_model, "--out", tmp_path, "--device", "cpu", "--quick",
        "--lean", "--order", "seq0,demo0,one0,view0,row0,probe", "--only", *names,
    )  # fmt: skip
    assert all(name in told for name in names)
    for name in names[:-1]:
        run = tmp_path / "runs" / name
        facts, stages = (
            json.loads((run / "base.json").read_text()),
            json.loads((run / "recipe.json").read_text())["tasks"],
        )
        assert len(facts["kl"]) == len(stages) and len(facts["chats"]) == 14
        assert all(kl["forward"]["value"] >= 0 for kl in facts["kl"].values())
        assert not (run / "stages").exists()  # --lean
    advised = sorted(path.name for path in (tmp_path / "runs").glob("probe-*"))
    assert advised == [f"probe-desk-triage-s{seed}" for seed in (0, 1, 2)]
