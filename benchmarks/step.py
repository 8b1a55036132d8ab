"""A whole optimizer step, ours beside TRL's: rollout, teacher, student, loss, backward, optimizer, teacher update.

    python benchmarks/step.py [--cases micro 27M vocab-32k] [--scaling batch new vocab layers] [--sides ...]
                              [--turns 5] [--json FILE] [--plot FILE] [--quick]

Sides: ours and trl (SDFT, each on its own completions), ours-sft and trl-sft (SFT on the completions that ours sampled
in the same turn), ours-naive (ours with full logits and autograd instead of the fused loss), ours-prefetch (a second
thread samples four batches together while the four before them train), ours-vllm and ours-vllm-prefetch.

Each side runs in its own process with one thread, and they take turns of one step; the first turn warms up. A ratio is
the median over turns of (their seconds / our seconds in the same turn), with quartiles. CPU seconds are more reliable
than wall time, as other work on the machine disturbs them far less. Memory "beyond the weights" is the highest resident
set during the steps less what was resident right after loading: teacher, gradients, optimizer, activations.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that wait must not spin
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from sides import PARTS, SIDES
from turns import Side
from workload import MAIN, SCALING, Case, build, write_data

from sdft_cli.models.devices import processor, processor_text

MB = 1e6
NEEDS = {"trl": "trl", "trl-sft": "trl", "ours-vllm": "vllm", "ours-vllm-prefetch": "vllm"}
ON_GIVEN = ("ours-sft", "trl-sft")  # sides that train on the completions that ours has just sampled
PEER = {"ours": "trl", "ours-sft": "trl-sft"}
QUICK = ("batch=4", "new=16")


def measure(case: Case, names: Sequence[str], turns: int, folder: Path, data: Path) -> dict[str, Any]:
    """One case: the results of its sides by name, turn by turn, and the ratios between them."""
    model = build(case, folder / case.name)
    running: dict[str, Side] = {}
    try:
        for name in names:
            function, *more = SIDES[name]
            running[name] = Side(name, function, case, folder / case.name, data, *more)
        for side in running.values():
            side.begin()
        reports = take_turns(running, turns)
        facts = {name: side.facts for name, side in running.items()}
    finally:
        for side in running.values():
            side.close()
    sides = {name: summary(reports[name], facts[name]) for name in names}
    return {"case": case._asdict(), **model, "sides": sides, "ratios": ratios(sides)}


def take_turns(running: dict[str, Side], turns: int) -> dict[str, list[dict[str, Any]]]:
    """``turns`` reports of every side, after a turn that warms up.

    The order changes from turn to turn, except that sides on given completions come after ours.
    """
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in running}
    for turn in range(turns + 1):
        samplers = [name for name in running if name not in ON_GIVEN]
        given: Any = None
        for name in (*(samplers if turn % 2 else reversed(samplers)), *(n for n in ON_GIVEN if n in running)):
            report = running[name].turn(given if name in ON_GIVEN else "step")
            rows = report.pop("rows")
            report["lengths"] = [len(completion) for _, completion in rows]
            if name == "ours":
                given = rows
            if turn:
                reports[name].append(report)
    return reports


def summary(reports: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    """Medians over the turns, and the turns themselves."""
    tokens = [sum(r["lengths"]) / r["steps"] for r in reports]
    return {
        "wall": statistics.median(r["wall"] for r in reports),
        "seconds": statistics.median(r["seconds"] for r in reports),
        "parts": {p: statistics.median(r["parts"].get(p, 0.0) for r in reports) for p in PARTS},
        "other": statistics.median(r["seconds"] - sum(r["parts"].values()) for r in reports),
        "tokens": statistics.mean(tokens),
        "mean_length": statistics.mean(n for r in reports for n in r["lengths"]),
        "max_length": statistics.mean(max(r["lengths"]) for r in reports),
        "written": sum(sum(r["lengths"]) for r in reports),
        "tokens_per_second": sum(tokens) / sum(r["seconds"] for r in reports),
        "loaded_bytes": facts["loaded"],
        "beyond_bytes": max(r["peak"] for r in reports) - facts["loaded"],
        "turns": reports,
    }


def ratios(sides: dict[str, Any]) -> dict[str, Any]:
    """What each side costs in units of another: paired turn by turn, with quartiles, and per completion token."""
    pairs = [(theirs, mine) for mine, theirs in PEER.items()]
    pairs += [(name, "ours-sft") for name in ("ours", "ours-prefetch", "ours-vllm", "ours-vllm-prefetch")]
    pairs += [(name, "ours") for name in ("ours-naive", "ours-prefetch", "ours-vllm")]
    return {f"{a} / {b}": ratio(sides[a], sides[b]) for a, b in pairs if a in sides and b in sides}


def ratio(theirs: dict[str, Any], mine: dict[str, Any]) -> dict[str, Any]:
    """Paired ratios by both clocks, ratios per completion token, and that of memory beyond the weights."""
    pairs = list(zip(theirs["turns"], mine["turns"], strict=True))
    out: dict[str, Any] = {clock: spread([a[clock] / b[clock] for a, b in pairs]) for clock in ("seconds", "wall")}
    for clock in ("seconds", "wall"):
        one, other = (sum(r[clock] * r["steps"] for r in s["turns"]) / s["written"] for s in (theirs, mine))
        out[f"{clock}_per_token"] = one / other
    out["beyond"] = theirs["beyond_bytes"] / max(1, mine["beyond_bytes"])
    return out


def spread(values: list[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "low": low, "high": high, "min": min(values), "max": max(values)}


def machine() -> dict[str, Any]:
    """What the results depend on besides the code."""
    packages = ("torch", "transformers", "trl", "vllm", "accelerate")
    installed = {d.metadata["name"].lower() for d in importlib.metadata.distributions()}
    versions = {p: importlib.metadata.version(p) for p in packages if p in installed}
    setup = {"python": platform.python_version(), "threads": 1, "precision": "float32", **processor()}
    return {**setup, "load": os.getloadavg()[0], **versions}


def table(row: dict[str, Any]) -> str:
    """A case as text. Seconds are CPU seconds of one thread, medians over the turns."""
    case = Case(**row["case"])
    head = f"{case.name}: {row['parameters'] / 1e6:.1f} M parameters, vocabulary {case.vocab:,}, batch {case.batch}, "
    lines = [
        head + f"up to {case.new} new tokens, each the last one with probability {row['end_probability']['mean']:.1%}"
    ]
    columns = ("step", *PARTS, "other", "wall", "tok/s", "mean", "max", "beyond MB")
    lines.append(f"  {'':<18}" + "".join(f"{c:>10}" for c in columns))
    for name, side in row["sides"].items():
        cells = [f"{x:10.3f}" for x in (side["seconds"], *side["parts"].values(), side["other"], side["wall"])]
        cells += [f"{side[k]:10.0f}" for k in ("tokens_per_second", "mean_length", "max_length")]
        lines.append(f"  {name:<18}" + "".join(cells) + f"{side['beyond_bytes'] / MB:10.0f}")
    for name, each in row["ratios"].items():
        cpu, wall = each["seconds"], each["wall"]
        lines.append(
            f"  {name:<30}{cpu['median']:6.2f} CPU [{cpu['low']:.2f}, {cpu['high']:.2f}]{wall['median']:6.2f} wall"
            f"    per token: {each['seconds_per_token']:5.2f} CPU{each['wall_per_token']:6.2f} wall"
            f"    beyond the weights: {each['beyond']:5.2f}"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", choices=MAIN, default=list(MAIN), metavar="CASE")
    parser.add_argument("--scaling", nargs="*", choices=SCALING, default=[], metavar="WHAT")
    usual = [name for name in SIDES if NEEDS.get(name) != "vllm"]
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=usual, metavar="SIDE")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="change the cases: batch=4 new=16")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the figure there as PNG, and an SVG beside it")
    parser.add_argument("--quick", action="store_true", help="a quick look: fewer turns, short completions")
    return parser.parse_args()


def changed(case: Case, sets: Sequence[str]) -> Case:
    """``case`` with fields set by ``key=value``, converted to their types."""
    values = dict(each.split("=", 1) for each in sets)
    return case._replace(**{k: type(getattr(case, k))(v) for k, v in values.items()})


def missing(names: Sequence[str]) -> dict[str, str]:
    """The sides that cannot run here, and why."""
    return {n: f"{m} is not installed" for n in names if (m := NEEDS.get(n)) and importlib.util.find_spec(m) is None}


def run(given: argparse.Namespace, names: Sequence[str], place: Path) -> dict[str, Any]:
    """Every chosen case and curve, printed as it is measured."""
    turns, sets = (2, [*QUICK, *given.set]) if given.quick else (given.turns, given.set)
    results: dict[str, Any] = {"cases": [], "scaling": {}}
    write_data(place / "data")

    def measured(case: Case, sides: Sequence[str], turns: int, fixed: str = "") -> dict[str, Any]:
        changes = [each for each in sets if not each.startswith(f"{fixed}=")]
        row = measure(changed(case, changes), sides, turns, place, place / "data")
        print(table(row), flush=True)
        return row

    for name in given.cases:
        results["cases"].append(measured(MAIN[name], names, turns))
    pair = [name for name in names if name in ("ours", "trl")]
    points: dict[Case, dict[str, Any]] = {}  # the curves share one
    for what in given.scaling:
        for case in SCALING[what]:
            same = case._replace(name="")
            points[same] = points.get(same) or measured(case, pair, max(2, turns // 2), what)
        results["scaling"][what] = [points[case._replace(name="")] for case in SCALING[what]]
    return results


def main() -> int:
    given = arguments()
    skipped = missing(given.sides)
    for name, why in skipped.items():
        print(f"skipping {name}: {why}")
    began = time.perf_counter()
    print(processor_text())
    with tempfile.TemporaryDirectory() as place:
        results = run(given, [name for name in given.sides if name not in skipped], Path(place))
    rows = {"machine": machine(), "skipped": skipped, "seconds": time.perf_counter() - began, **results}
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")
    if given.plot:
        from plot import draw

        draw(rows, given.plot)
    print(f"{rows['seconds']:.0f} seconds in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
