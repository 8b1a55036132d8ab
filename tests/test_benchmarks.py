"""What the benchmarks show is held here, by the commands themselves: mostly minutes each, so slow."""

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
    """The module of that name; the scripts of a folder find each other as they do when one is run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import workload

    return workload


def bench(script: str, *words: object) -> str:
    """What a benchmark printed."""
    command = [sys.executable, f"benchmarks/{script}", *map(str, words)]
    return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout


def step(folder: Path, *words: object) -> dict[str, Any]:
    """The figures of ``step.py``."""
    bench("step.py", "--json", folder / "step.json", *words)
    return json.loads((folder / "step.json").read_text())


def check_sides(case: dict[str, Any], names: set[str]) -> None:
    """Every side has made the steps, its parts are the whole, and lengths mix within the limit."""
    assert set(case["sides"]) == names
    for name, side in case["sides"].items():
        assert set(side["parts"]) == PARTS and all(v >= 0 for v in side["parts"].values()), name
        for turn in side["turns"]:
            assert 0.7 < sum(turn["parts"].values()) / turn["seconds"] < 1.001, name
            assert len(turn["lengths"]) == case["case"]["batch"] * turn["steps"]
            assert 1 <= min(turn["lengths"]) < max(turn["lengths"]) <= case["case"]["new"], name
        assert side["beyond_bytes"] > 0 and side["tokens_per_second"] > 0


def lengths(side: dict[str, Any]) -> list[list[int]]:
    """Of the completions of every turn, shortest first."""
    return [sorted(turn["lengths"]) for turn in side["turns"]]


@pytest.mark.parametrize("tied", [False, True])
def test_completions_end_by_the_hazard(workload: Any, tied: bool) -> None:
    """A sampled token ends its completion about as often as the case says, whatever came before it."""
    case = workload.Case("toy", hidden=64, inner=128, layers=2, heads=4, kv=2, vocab=2048, new=40, tied=tied)
    model, hazard = workload.make(case)
    assert hazard["wanted"] == 0.05 and hazard["mean"] == pytest.approx(0.05, rel=0.1)
    torch.manual_seed(1)
    ids_BL = torch.randint(0, 1000, (64, 8))
    with torch.no_grad():
        written_BL = model.generate(ids_BL, max_new_tokens=40, do_sample=True, top_k=0)[:, 8:]
    ended_BL = written_BL == model.config.eos_token_id
    asked = sum((row.tolist().index(True) + 1) if row.any() else 40 for row in ended_BL)
    assert ended_BL.any(1).sum() / asked == pytest.approx(0.05, rel=0.5)


def test_the_models_logits_depend_on_what_came_before(workload: Any) -> None:
    """Random weights that only repeat their last token would make the checks of `checks.py` empty."""
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
    found = step(tmp_path, *words, "--plot", tmp_path / "step.png")
    (case,) = found["cases"]
    check_sides(case, {"ours", "ours-sft"})
    assert case["hazard"]["mean"] == pytest.approx(case["hazard"]["wanted"], rel=0.1)
    ours, sft = case["sides"]["ours"], case["sides"]["ours-sft"]
    assert lengths(ours) == lengths(sft)  # SFT is given what ours wrote
    assert sft["parts"]["teacher"] == 0 < ours["parts"]["teacher"]
    assert case["ratios"]["ours / ours-sft"]["seconds"]["median"] > 1
    assert (tmp_path / "step.png").stat().st_size > 10_000 and (tmp_path / "step.svg").exists()


@LINUX
@pytest.mark.slow
def test_every_side_and_curve_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("trl", minversion="1.16", reason="TRL is the peer to compare with: pip install -e '.[dev]'")
    names = {"ours", "trl", "ours-sft", "trl-sft", "ours-naive", "ours-ahead"}
    found = step(tmp_path, "--quick", "--cases", "micro", "--set", "batch=8", "--scaling", "vocab", "--sides", *names)
    check_sides(found["cases"][0], names)
    assert set(found["cases"][0]["ratios"]) == {
        "trl / ours", "trl-sft / ours-sft", "ours / ours-sft", "ours-naive / ours", "ours-ahead / ours-sft",
        "ours-ahead / ours",
    }  # fmt: skip
    assert [row["case"]["vocab"] for row in found["scaling"]["vocab"]] == [1203, 8192, 32_768]
    assert all(set(row["sides"]) == {"ours", "trl"} for row in found["scaling"]["vocab"])
    sides = found["cases"][0]["sides"]
    assert {turn["steps"] for turn in sides["ours-ahead"]["turns"]} == {4}
    assert lengths(sides["trl-sft"]) == lengths(sides["ours-sft"]) == lengths(sides["ours"])
    losses = ([turn["loss"] for turn in sides[name]["turns"]] for name in ("ours", "ours-naive"))
    assert next(losses) == pytest.approx(next(losses), rel=1e-3)  # these two write the same


@LINUX
@pytest.mark.slow
def test_a_step_takes_half_of_trls_memory_at_a_large_vocabulary(tmp_path: Path) -> None:
    """Beyond the weights, at a vocabulary of 32,768. Measured: 4 times less."""
    pytest.importorskip("trl", minversion="1.16", reason="TRL is the peer to compare with: pip install -e '.[dev]'")
    found = step(tmp_path, "--cases", "vocab-32k", "--sides", "ours", "trl", "--turns", 2)
    assert found["cases"][0]["ratios"]["trl / ours"]["beyond"] >= 2


@LINUX
@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    told = bench("gpu.py", "--device", "cpu", "--tiny", "--turns", 1, "--out", tmp_path, "--only", "0.5B", "14B full")
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert all(check["ok"] for check in found["checks"]) and len(found["checks"]) >= 4
    wanted = {"0.5B full ours", "0.5B LoRA ours", "0.5B full trl", "14B full, lean ours"}
    assert set(found["cases"]) == wanted and all(name in told for name in wanted)
    for name, row in found["cases"].items():
        if name.endswith("ours"):
            assert row["training_flops_per_second"] > 0 and row["peak_bytes"] >= row["weights_bytes"] > 0, name


@LINUX
@pytest.mark.slow
def test_a_fused_divergence_takes_a_tenth_of_the_memory_and_no_more_time(tmp_path: Path) -> None:
    """N = 2,048 and V = 32,768. Measured: 0.04 to 0.08 of the memory, 0.3 to 0.6 of the time."""
    found = tmp_path / "found.json"
    bench("divergence.py", "--json", found, "--repeats", 3, "--losses", *KINDS)
    rows = json.loads(found.read_text())["rows"]
    assert [row["loss"] for row in rows] == list(KINDS)
    for row in rows:
        assert row["bytes"]["fused"] <= row["bytes"]["naive"] / 10, row
        taken = row["cpu_seconds"]  # of one thread; by the clock it would be a matter of who else is at work
        assert taken["fused"] <= taken["naive"] * 1.1, row  # a tenth for noise
