"""SDFT steps on a GPU: speed, share of the matrix-multiply peak and memory of random-initialised Qwen2.5 shapes, bf16.

    python benchmarks/gpu.py [--out FOLDER] [--budget 540] [--turns 2] [--only WORD ...] [--device cpu --tiny]

No network, no model files: weights are made on the device from the published configurations, prompts come from the
micro world, and completions end by a known hazard (`workload`). First what must be right is checked (`checks`), then
each case makes one step to warm up and ``--turns`` steps under the clock, each in a process of its own: full
fine-tuning and LoRA of rank 64, TRL beside it where it is installed, then larger shapes until one does not fit. Full
fine-tuning learns in bf16 by fp32 masters here, and in TRL by fp32 weights under autocast.
A case that would not end within ``--budget`` seconds is left out and named. Writes ``gpu.json`` into ``--out``.

Share of the peak: useful work of the training part (teacher forward; student forward and backward; both heads at the
completion's tokens) by its seconds, against the best bf16 product measured here and against ``--nominal``. Attention's
own products, padding and whatever is computed twice count as nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")  # as in `pretrained.load`, for the peer's side

from checks import checks
from sides import ours, trl_sdft
from turns import Side, Turn
from workload import Case, config, make, tokenizer, write_data

GB = 1e9
START = 25.0  # seconds until a process has imported everything
RANK = 64
#: Qwen2.5's published shapes: hidden, inner, layers, heads, key heads, vocabulary, tied.
SHAPES = {
    "0.5B": (896, 4864, 24, 14, 2, 151_936, True),
    "1.5B": (1536, 8960, 28, 12, 2, 151_936, True),
    "3B": (2048, 11_008, 36, 16, 2, 151_936, True),
    "7B": (3584, 18_944, 28, 28, 4, 152_064, False),
    "14B": (5120, 13_824, 48, 40, 8, 152_064, False),
    "32B": (5120, 27_648, 64, 40, 8, 152_064, False),
}
#: What full fine-tuning of a large shape needs: no fp32 copy of the weights, the teacher in half precision.
LEAN = ("train.master=stochastic", "teacher.storage=half")
SMALL = {"batch": 8, "new": 64, "prompt": 64, "shown": 32}


class Job(NamedTuple):
    """A case, whose step is taken, and about how many seconds it takes with its start."""

    case: Case
    side: str = "ours"
    seconds: float = 60.0

    @property
    def name(self) -> str:
        return f"{self.case.name} {self.side}"


def shape(name: str, how: str, **more: Any) -> Case:
    """A published shape, fine-tuned fully or by LoRA."""
    hidden, inner, layers, heads, kv, vocab, tied = SHAPES[name]
    usual = {"batch": 32, "new": 256, "prompt": 256, "shown": 128, "device": "cuda", "dtype": "bfloat16"}
    return Case(
        f"{name} {how}", hidden, inner, layers, heads, vocab, kv=kv, tied=tied, lora=RANK * (how == "LoRA"),
        **{**usual, **more},
    )  # fmt: skip


def jobs() -> list[Job]:
    """What is measured, the most wanted first."""
    found = [Job(shape(name, how)) for name in ("0.5B", "1.5B", "7B") for how in ("full", "LoRA")]
    found += [Job(shape(name, how), "trl", 90) for name, how in (("0.5B", "full"), ("1.5B", "full"), ("7B", "LoRA"))]
    found += [Job(shape(name, "LoRA", **SMALL), "ours", 60) for name in ("14B", "32B")]
    return found + [Job(shape(name, "full, lean", sets=LEAN, **SMALL), "ours", 60) for name in ("7B", "14B")]


def tiny(job: Job, device: str) -> Job:
    """The same job with a model and lengths for a smoke test."""
    small = {"hidden": 64, "inner": 128, "layers": 2, "heads": 4, "kv": 2, "vocab": 2048, "batch": 4, "new": 8}
    return job._replace(case=job.case._replace(**small, device=device, prompt=32, shown=16), seconds=0.0)


# a case -------------------------------------------------------------------------------------------------------


def queued(turn: Turn, side: str, case: Case, model: Path, data: Path) -> None:
    """Import everything, wait to be called, then be that side with weights made on the device."""
    import transformers

    import sdft_cli.training.trainer  # noqa: F401

    turn.pipe.recv()

    def made(*_: Any, **__: Any) -> Any:
        fresh = make(case)[0]
        fresh.config._name_or_path = str(model)
        return fresh

    for kind in (transformers.AutoModelForCausalLM, transformers.Qwen2ForCausalLM):
        kind.from_pretrained = made
    {"ours": ours, "trl": trl_sdft}[side](turn, case, model, data)


def checking(turn: Turn, case: Case, folder: Path, data: Path) -> None:
    """What must be right, and how fast the device multiplies."""
    turn.on(case.device)
    turn.is_ready()
    turn.wait()
    found = checks(case, folder, data)
    turn.stop()
    turn.report(**found)


def measure(job: Job, side: Side, turns: int, deadline: float) -> dict[str, Any]:
    """The figures of one job; ``skipped`` with a reason where there are none."""
    if time.monotonic() + job.seconds > deadline:
        return {"skipped": "no time left"}
    side.patience = max(1.0, deadline - time.monotonic())
    try:
        with contextlib.suppress(OSError):  # a side that has ended already has left word
            side.pipe.send("go")
        side.begin()
        reports = [side.turn("step") for _ in range(turns + 1)][1:]
    except (RuntimeError, TimeoutError) as error:
        lines = str(error).strip().splitlines()
        return {"skipped": "does not fit" if "out of memory" in str(error).lower() else lines[-1][:200]}
    finally:
        side.close(5.0)
    return figures(job.case, reports, side.facts)


def figures(case: Case, reports: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    """Medians over the steps, rates, and the useful work a second."""
    rollout = [r["parts"]["rollout"] for r in reports]
    training = [r["seconds"] - r["parts"]["rollout"] for r in reports]
    written = [sum(len(c) for _, c in r["rows"]) for r in reports]
    read = [sum(len(p) + len(c) for p, c in r["rows"]) for r in reports]
    done = [flops(case, *each) for each in zip(read, (r["taught"] for r in reports), written, strict=True)]
    return {
        "seconds": statistics.median(r["seconds"] for r in reports),
        "parts": {part: statistics.median(r["parts"].get(part, 0.0) for r in reports) for part in reports[0]["parts"]},
        "rollout_tokens_per_second": sum(written) / sum(rollout),
        "training_tokens_per_second": sum(read) / sum(training),
        "mean_length": sum(written) / (len(reports) * case.batch),
        "max_length": max(len(c) for r in reports for _, c in r["rows"]),
        "training_flops_per_second": sum(done) / sum(training),
        "weights_bytes": facts["loaded"],
        "peak_bytes": max(r["peak"] for r in reports),
    }


def flops(case: Case, read: int, taught: int, written: int) -> float:
    """Useful work of a step's training: 2 a weight and token forward, as much again for the gradient of what goes in
    and, where the weight learns, for its own."""
    wide = case.hidden // case.heads * case.kv
    body = case.layers * (2 * case.hidden**2 + 2 * case.hidden * wide + 3 * case.hidden * case.inner)
    head, passes = case.hidden * case.vocab, 2 if case.lora else 3
    return 2.0 * (body * (taught + passes * read) + head * written * (1 + passes))


# the whole ----------------------------------------------------------------------------------------------------


def run(given: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Checks, then every job in turn. Processes start ahead, so that imports cost no device time."""
    deadline = time.monotonic() + given.budget
    wanted = [job for job in jobs() if not given.only or any(word in job.name for word in given.only)]
    wanted = [tiny(job, given.device) if given.tiny else job for job in wanted]
    data = place / "data"
    write_data(data)
    for job in wanted:
        config(job.case, tokenizer()).save_pretrained(place / job.name)
        tokenizer().save_pretrained(place / job.name)
    first = wanted[0].case._replace(name="checks", layers=min(4, wanted[0].case.layers), batch=8, lora=0)
    sides = {
        job.name: Side(job.name, queued, job.side, job.case, place / job.name, data) for job in wanted if ready(job)
    }
    (checker := Side("checks", checking, first, place, data)).begin()
    found = checker.turn("check")
    checker.close()
    print(told(found), flush=True)
    rows: dict[str, Any] = {}
    print(HEADER, flush=True)
    for job in wanted:
        side = sides.get(job.name)
        rows[job.name] = measure(job, side, given.turns, deadline) if side else {"skipped": "TRL is not installed"}
        print(line(job.name, rows[job.name], found["matmul_flops"], given.nominal * 1e12), flush=True)
    return {"checks": found["checks"], "matmul_flops": found["matmul_flops"], "cases": rows,
            "shapes": {job.name: job.case._asdict() for job in wanted}}  # fmt: skip


def ready(job: Job) -> bool:
    """Whether this side can run here."""
    return job.side != "trl" or importlib.util.find_spec("trl") is not None


def told(found: dict[str, Any]) -> str:
    """The checks as text."""
    lines = [
        f"{'ok ' if c['ok'] else 'BAD'} {c['what']}: {c['value']:.2e} (at most {c['limit']:.0e})"
        for c in found["checks"]
    ]
    return "\n".join([*lines, f"bf16 product: {found['matmul_flops'] / 1e12:.2f} TFLOP/s"])


COLUMNS = {"step s": 8, "rollout": 9, "tok/s": 8, "train tok/s": 13, "% peak": 8, "% nominal": 11, "peak GB": 9}
HEADER = " " * 22 + "".join(f"{name:>{width}}" for name, width in COLUMNS.items())


def line(name: str, row: dict[str, Any], peak: float, nominal: float) -> str:
    """A case as text."""
    if "skipped" in row:
        return f"{name:<22}  {row['skipped']}"
    rate, parts = row["training_flops_per_second"], row["parts"]
    cells = [f"{row['seconds']:.2f}", f"{parts['rollout']:.2f}", f"{row['rollout_tokens_per_second']:.0f}"]
    cells += [f"{row['training_tokens_per_second']:.0f}", f"{rate / peak:.0%}", f"{rate / nominal:.0%}"]
    cells.append(f"{row['peak_bytes'] / GB:.1f}")
    return f"{name:<22}" + "".join(f"{x:>{width}}" for x, width in zip(cells, COLUMNS.values(), strict=True))


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on beside the code."""
    import torch
    import transformers

    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor()
    return {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")), help="a folder ($OUT)")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds in all")
    parser.add_argument("--turns", type=int, default=2, help="steps under the clock")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="cases whose name holds one of these")
    parser.add_argument("--nominal", type=float, default=989.0, help="the device's bf16 TFLOP/s on paper")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy shapes: does the script work?")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        rows = run(given, Path(place))
    rows = {"machine": machine(given.device), **rows, "seconds": time.monotonic() - began}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "gpu.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(f"{rows['seconds']:.0f} seconds in all; {given.out / 'gpu.json'}")
    return 0 if all(check["ok"] for check in rows["checks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
