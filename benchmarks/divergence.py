"""What the fused losses save: time and extra memory of forward and backward pass, against autograd on full logits.

    python benchmarks/divergence.py [--json FILE] [--tokens 2048] [--vocab 32768] [--hidden 256]

Time is the median of alternating runs (naive, fused, naive, fused, ...) in a process of their own, as wall time and as
CPU time, which other work on the machine disturbs far less (with one thread, both are equal on an idle machine). Memory
is measured in a fresh process for every cell: the highest resident set (VmHWM) less what was resident before the pass,
so inputs and weights do not count, but gradients do. ``scratch`` is that less the gradients of hidden states and head,
4 (N + V) H bytes, which any loss leaves behind. Linux only (/proc); fp32, on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait must not spin

import torch
from turns import resident

from sdft_cli.losses.divergence import KINDS, Divergence, divergence
from sdft_cli.losses.fused import Head, Labels, Scored, fused_loss
from sdft_cli.models.devices import processor, processor_text

LOSSES = (*KINDS, "nll")
PATHS = ("naive", "fused")
MB = 1e6


class Shape(NamedTuple):
    """N tokens, V vocabulary entries, H hidden units; threads of torch."""

    tokens: int = 2048
    vocab: int = 32_768
    hidden: int = 256
    threads: int = 1


def prepare(loss: str, path: str, shape: Shape) -> Callable[[], None]:
    """A function that runs one forward and backward pass of ``loss`` by ``path``."""
    torch.set_num_threads(shape.threads)
    torch.manual_seed(0)
    student_NH, teacher_NH = (torch.randn(shape.tokens, shape.hidden) for _ in range(2))
    weight_VH, fixed_VH = (torch.randn(shape.vocab, shape.hidden) / shape.hidden**0.5 for _ in range(2))
    tokens_N = torch.randint(0, shape.vocab, (shape.tokens,))
    weights_N = torch.full((shape.tokens,), 1 / shape.tokens)
    student_NH.requires_grad_()
    weight_VH.requires_grad_()
    settings = None if loss == "nll" else Divergence(loss)

    def fused() -> torch.Tensor:
        teacher = None if settings is None else Scored(teacher_NH, Head(fixed_VH))
        return fused_loss(Scored(student_NH, Head(weight_VH)), Labels(tokens_N, weights_N), teacher, settings)[0]

    def naive() -> torch.Tensor:
        logits_NV = student_NH @ weight_VH.T
        if settings is None:
            return torch.nn.functional.cross_entropy(logits_NV, tokens_N)
        return (weights_N * divergence(logits_NV, teacher_NH @ fixed_VH.T, settings)).sum()

    def run() -> None:
        student_NH.grad = weight_VH.grad = None
        (fused() if path == "fused" else naive()).backward()

    return run


def times(loss: str, shape: Shape, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of each path by each clock, from alternating runs."""
    runs = {path: prepare(loss, path, shape) for path in PATHS}
    samples: dict[str, list[tuple[float, float]]] = {path: [] for path in PATHS}
    for i in range(repeats + 1):
        for path, run in runs.items():
            start = time.perf_counter(), time.process_time()
            run()
            if i:  # the first round warms up
                samples[path].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    by_clock = {path: [statistics.median(s) for s in zip(*pairs, strict=True)] for path, pairs in samples.items()}
    return {name: {path: by_clock[path][i] for path in PATHS} for i, name in enumerate(("seconds", "cpu_seconds"))}


def peak(loss: str, path: str, shape: Shape) -> int:
    """Bytes that one pass needs beyond what this process holds; call it in a fresh process."""
    prepare(loss, path, shape._replace(tokens=8, vocab=64))()  # so that libraries load what they need
    run = prepare(loss, path, shape)
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def fresh(function: Callable[..., Any], *arguments: object) -> Any:
    """The result of ``function`` in a new process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure(loss: str, shape: Shape, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    memory = {path: fresh(peak, loss, path, shape) for path in PATHS}
    gradients = 4 * (shape.tokens + shape.vocab) * shape.hidden
    scratch = {path: held - gradients for path, held in memory.items()}
    return {"loss": loss, **fresh(times, loss, shape, repeats), "bytes": memory, "scratch": scratch}


def line(row: dict[str, Any]) -> str:
    """``row`` as text."""
    cells = [f"{row['loss']:<11}"]
    for what, unit, form in (
        ("seconds", 1, "8.2f"),
        ("cpu_seconds", 1, "8.2f"),
        ("bytes", MB, "8.0f"),
        ("scratch", MB, "8.0f"),
    ):
        naive, fused = (row[what][path] for path in PATHS)
        cells.append(f"{naive / unit:{form}}{fused / unit:{form}}{fused / naive:7.2f}")
    return "  ".join(cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in Shape()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each path")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    given = parser.parse_args()
    shape = Shape(given.tokens, given.vocab, given.hidden, given.threads)
    print(f"{shape}, fp32, torch {torch.__version__}, {processor_text()}")
    print(f"{'':<11}{'seconds':>25}{'CPU seconds':>25}{'peak extra MB':>25}{'of which scratch MB':>25}")
    print(f"{'loss':<11}" + f"  {'naive':>8}{'fused':>8}{'ratio':>7}" * 4)
    rows = []
    for loss in given.losses:
        rows.append(measure(loss, shape, given.repeats))
        print(line(rows[-1]), flush=True)
    if given.json:
        results = {"shape": shape._asdict(), "repeats": given.repeats, "torch": torch.__version__, "rows": rows}
        results["machine"] = processor()
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
