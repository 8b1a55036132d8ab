"""Several ranks train as one process does: the same completions, losses and weights, up to rounding."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
CASES = {
    "ema": "sdft:update_rate=0.1",
    "half": "sdft:update_rate=0.1,teacher.storage=half",
    "base": "sdft:teacher.start=base,update_rate=0",
    "live": "sdft:update_rate=1",
    "twice": "sdft:update_rate=0.1,updates=2,batch=2",  # a rank of three has nothing to do
    "sft": "sft:",
    "recompute": "sdft:update_rate=0.1,gradient_checkpointing=on",
    "grpo": "grpo:n=2,batch=4",
    "lora": "sdft:lora.rank=4,update_rate=0.1",
}
#: Of these the default run trains two ranks.
FEW = ("ema", "twice", "lora")


def run(ranks: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`tests.support.ranks` in so many processes."""
    launcher = [] if ranks == 1 else ["torch.distributed.run", "--nproc-per-node", str(ranks), "-m"]
    command = [sys.executable, "-m", *launcher, "tests.support.ranks", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended


def of(out: Path, name: str) -> tuple[list[dict], dict[str, torch.Tensor]]:
    return json.loads((out / f"{name}.json").read_text()), torch.load(out / f"{name}.pt")


def assert_alike(one: Path, other: Path, name: str) -> None:
    """The same completions; losses, norms and weights as near as rounding allows."""
    (steps, weights), (others, their) = of(one, name), of(other, name)
    assert [s["completions"] for s in others] == [s["completions"] for s in steps]
    for a, b in zip(steps, others, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4, abs=1e-5)
        assert b["norm"] == pytest.approx(a["norm"], rel=1e-4, abs=1e-5)
    for key, weight in weights.items():
        # Adam divides by what may be near 0: a rounding in a gradient of 1e-9 becomes one of the learning rate
        different = (their[key].float() - weight.float()).abs()
        assert float(different.mean()) < 1e-5, key


def trained(ranks: int, out: Path, model: Path, data: Path, names: Iterable[str]) -> Path:
    out.mkdir()
    run(ranks, model, data, out, *(f"{name}:{CASES[name]}" for name in names))
    return out


@pytest.mark.timeout(300)
def test_two_ranks_change_nothing(tmp_path: Path, tiny_model: Path, micro_data: Path) -> None:
    outs = {ranks: trained(ranks, tmp_path / str(ranks), tiny_model, micro_data, FEW) for ranks in (1, 2)}
    for name in FEW:
        assert_alike(outs[1], outs[2], name)
    saved = [load_file(outs[2] / "ema" / folder / "model.safetensors") for folder in ("model", "after-a-failure")]
    assert all(torch.equal(saved[0][key], saved[1][key]) for key in saved[0])  # passes free the weights, for a while


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_number_of_ranks_changes_anything_and_runs_go_on_with_others(
    tmp_path: Path, tiny_model: Path, micro_data: Path
) -> None:
    """Every case on 1, 2 and 3 ranks; then, from what each has saved, the next steps on 1, 2 and 3."""
    outs = {ranks: trained(ranks, tmp_path / str(ranks), tiny_model, micro_data, CASES) for ranks in (1, 2, 3)}
    for name in CASES:
        assert_alike(outs[1], outs[2], name)
        assert_alike(outs[1], outs[3], name)
    names = ("ema", "half", "lora")
    for ranks in (1, 2, 3):
        (tmp_path / f"on-{ranks}").mkdir()
        cases = [f"{name}-{by}:{CASES[name]}:from {outs[by] / name}" for name in names for by in (1, 2, 3)]
        run(ranks, tiny_model, micro_data, tmp_path / f"on-{ranks}", *cases)
    for name in names:
        expected = json.loads((tmp_path / "on-1" / f"{name}-1.json").read_text())
        for ranks, by in product((1, 2, 3), (1, 2, 3)):
            steps = json.loads((tmp_path / f"on-{ranks}" / f"{name}-{by}.json").read_text())
            assert [s["completions"] for s in steps] == [s["completions"] for s in expected], (name, ranks, by)
            losses = [s["loss"] for s in expected]
            assert [s["loss"] for s in steps] == pytest.approx(losses, rel=1e-4, abs=1e-5)
