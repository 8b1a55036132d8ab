"""SDFT steps on a GPU: speed, share of the peak of matrix products, and memory; Qwen2.5 shapes, random weights, bf16.

    python benchmarks/gpu.py [--out FOLDER] [--budget 540] [--turns 2] [--only WORD ...] [--device cpu --tiny]

Needs no network and no model files: weights are made on the device from the published configurations, prompts come
from the micro world, and each token ends the completion with a fixed probability (`workload`). First `checks` must
pass; then each case takes one step to warm up and ``--turns`` timed steps, in its own process: full fine-tuning, LoRA
of rank 64, TRL where it is installed, then larger shapes until one does not fit. Full fine-tuning uses bf16 weights
with fp32 masters here, and fp32 weights under autocast in TRL.
A case that would not end within ``--budget`` seconds is skipped, with a note. Writes ``gpu.json`` into ``--out``.

The share of the peak is useful work per second of the training part (teacher forward, student forward and backward,
both output heads at the completion's tokens), relative to the fastest bf16 product measured here and to ``--nominal``.
Attention's own products, padding and whatever is computed twice do not count.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
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
from workload import Case, config, loaded, tokenizer, write_data

GB = 1e9
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
#: Full fine-tuning of a large shape: no fp32 copy of the weights, the teacher's average in bf16.
LEAN = ("train.master=stochastic", "teacher.storage=half")
SMALL = {"batch": 8, "new": 64, "prompt": 64, "demonstration": 32}


class Job(NamedTuple):
    """A case, the side that takes the steps, and an estimate of the seconds it needs in all."""

    case: Case
    side: str = "ours"
    seconds: float = 60.0

    @property
    def name(self) -> str:
        return f"{self.case.name} {self.side}"


def shape(name: str, kind: str, **changes: Any) -> Case:
    """A published shape, with full fine-tuning or LoRA."""
    hidden, inner, layers, heads, kv, vocab, tied = SHAPES[name]
    usual = {"batch": 32, "new": 256, "prompt": 256, "demonstration": 128, "device": "cuda", "dtype": "bfloat16"}
    return Case(
        f"{name} {kind}", hidden, inner, layers, heads, vocab, kv=kv, tied=tied, lora=RANK * (kind == "LoRA"),
        **{**usual, **changes},
    )  # fmt: skip


def jobs() -> list[Job]:
    """What is measured, the most important first."""
    jobs = [Job(shape(name, kind)) for name in ("0.5B", "1.5B", "7B") for kind in ("full", "LoRA")]
    jobs += [Job(shape(name, kind), "trl", 90) for name, kind in (("0.5B", "full"), ("1.5B", "full"), ("7B", "LoRA"))]
    jobs += [Job(shape(name, "LoRA", **SMALL), "ours", 60) for name in ("14B", "32B")]
    return jobs + [Job(shape(name, "full, lean", sets=LEAN, **SMALL), "ours", 60) for name in ("7B", "14B")]


def tiny(job: Job, device: str) -> Job:
    """The same job with a tiny model and short completions, for a smoke test."""
    small = {"hidden": 64, "inner": 128, "layers": 2, "heads": 4, "kv": 2, "vocab": 2048, "batch": 4, "new": 8}
    return job._replace(case=job.case._replace(**small, device=device, prompt=32, demonstration=16), seconds=0.0)


# a case -------------------------------------------------------------------------------------------------------


def queued(turn: Turn, side: str, case: Case, model: Path, data: Path) -> None:
    """Import everything, wait for a signal, then run ``side`` with weights made on the device."""
    import transformers

    import sdft_cli.training.trainer  # noqa: F401

    turn.pipe.recv()

    def from_pretrained(*_: Any, **settings: Any) -> Any:
        fresh = loaded(case, settings)
        (fresh[0] if isinstance(fresh, tuple) else fresh).config._name_or_path = str(model)
        return fresh

    for kind in (transformers.AutoModelForCausalLM, transformers.Qwen2ForCausalLM):
        kind.from_pretrained = from_pretrained
    {"ours": ours, "trl": trl_sdft}[side](turn, case, model, data)


def checking(turn: Turn, case: Case, folder: Path, data: Path) -> None:
    """The checks, and how fast the device multiplies."""
    turn.on(case.device)
    turn.is_ready()
    turn.wait()
    results = checks(case, folder, data)
    turn.stop()
    turn.report(**results)


def measure(job: Job, side: Side, turns: int, deadline: float) -> dict[str, Any]:
    """The results of one job, or ``skipped`` with a reason."""
    if time.monotonic() + job.seconds > deadline:
        return {"skipped": "no time left"}
    side.patience = max(1.0, deadline - time.monotonic())
    try:
        with contextlib.suppress(OSError):  # a side that has already ended has reported why
            side.pipe.send("go")
        side.begin()
        reports = [side.turn("step") for _ in range(turns + 1)][1:]
    except (RuntimeError, TimeoutError) as error:
        lines = str(error).strip().splitlines()
        return {"skipped": "does not fit" if "out of memory" in str(error).lower() else lines[-1][:200]}
    finally:
        side.close(5.0)
    return summary(job.case, reports, side.facts)


def summary(case: Case, reports: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    """Medians over the steps, rates, and useful work per second."""
    rollout = [r["parts"]["rollout"] for r in reports]
    training = [r["seconds"] - r["parts"]["rollout"] for r in reports]
    sampled = [sum(len(c) for _, c in r["rows"]) for r in reports]
    read = [sum(len(p) + len(c) for p, c in r["rows"]) for r in reports]
    work = [flops(case, *each) for each in zip(read, (r["taught"] for r in reports), sampled, strict=True)]
    return {
        "seconds": statistics.median(r["seconds"] for r in reports),
        "parts": {part: statistics.median(r["parts"].get(part, 0.0) for r in reports) for part in reports[0]["parts"]},
        "rollout_tokens_per_second": sum(sampled) / sum(rollout),
        "training_tokens_per_second": sum(read) / sum(training),
        "mean_length": sum(sampled) / (len(reports) * case.batch),
        "max_length": max(len(c) for r in reports for _, c in r["rows"]),
        "training_flops_per_second": sum(work) / sum(training),
        "weights_bytes": facts["loaded"],
        "peak_bytes": max(r["peak"] for r in reports),
    }


def flops(case: Case, read: int, taught: int, sampled: int) -> float:
    """Useful work of a step's training: per weight and token, 2 forward, 2 for the gradient of the input and, where the
    weight is trained, 2 for its own.

    ``read`` and ``taught`` are the tokens that student and teacher read, ``sampled`` those of completions.
    """
    wide = case.hidden // case.heads * case.kv
    body = case.layers * (2 * case.hidden**2 + 2 * case.hidden * wide + 3 * case.hidden * case.inner)
    head, passes = case.hidden * case.vocab, 2 if case.lora else 3
    return 2.0 * (body * (taught + passes * read) + head * sampled * (1 + passes))


# the whole ----------------------------------------------------------------------------------------------------


def run(given: argparse.Namespace, place: Path) -> dict[str, Any]:
    """The checks, then every job in turn. Processes start early, so that imports take no device time."""
    deadline = time.monotonic() + given.budget
    chosen = [job for job in jobs() if not given.only or any(word in job.name for word in given.only)]
    chosen = [tiny(job, given.device) if given.tiny else job for job in chosen]
    data = place / "data"
    write_data(data)
    for job in chosen:
        config(job.case, tokenizer()).save_pretrained(place / job.name)
        tokenizer().save_pretrained(place / job.name)
    first = chosen[0].case._replace(name="checks", layers=min(4, chosen[0].case.layers), batch=8, lora=0)
    sides = {
        job.name: Side(job.name, queued, job.side, job.case, place / job.name, data) for job in chosen if installed(job)
    }
    (checker := Side("checks", checking, first, place, data)).begin()
    checked = checker.turn("check")
    checker.close()
    print(checks_text(checked), flush=True)
    rows: dict[str, Any] = {}
    print(HEADER, flush=True)
    for job in chosen:
        side = sides.get(job.name)
        rows[job.name] = measure(job, side, given.turns, deadline) if side else {"skipped": "TRL is not installed"}
        print(line(job.name, rows[job.name], checked["matmul_flops"], given.nominal * 1e12), flush=True)
    return {"checks": checked["checks"], "matmul_flops": checked["matmul_flops"], "cases": rows,
            "shapes": {job.name: job.case._asdict() for job in chosen}}  # fmt: skip


def installed(job: Job) -> bool:
    """Whether the job's side can run here."""
    return job.side != "trl" or importlib.util.find_spec("trl") is not None


def checks_text(checked: dict[str, Any]) -> str:
    """The checks as text."""
    lines = [
        f"{'ok ' if c['ok'] else 'BAD'} {c['what']}: {c['value']:.2e} (at most {c['limit']:.0e})"
        for c in checked["checks"]
    ]
    return "\n".join([*lines, f"bf16 product: {checked['matmul_flops'] / 1e12:.2f} TFLOP/s"])


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
    """What the results depend on besides the code."""
    import torch
    import transformers

    from sdft_cli.models.devices import processor

    cpu = processor()
    name = torch.cuda.get_device_name() if device.startswith("cuda") else cpu["cpu"]
    return {"device": name, **cpu, "torch": torch.__version__, "transformers": transformers.__version__}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", ".")), help="the folder of gpu.json (default: $OUT)"
    )
    parser.add_argument("--budget", type=float, default=540.0, help="seconds in all")
    parser.add_argument("--turns", type=int, default=2, help="timed steps")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="only cases whose name contains one of these")
    parser.add_argument("--nominal", type=float, default=989.0, help="the device's nominal bf16 TFLOP/s")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to see whether the script works")
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
