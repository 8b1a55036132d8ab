"""The figures on three tasks in a row (docs/results.md), made again (``--out runs/figures``).

Grid: every method trains the three-task sequence at every rate of one grid (seed 0). Rule, the same for both and that
of `sdft sweep` (``stats/selection.py``): mean validation accuracy on each stage's own task at its end; of the rates
within one standard error of the best, the lowest. Then all seeds at the chosen rate, and SDFT's ablations.
Runs are ordinary `sdft train` runs, two at a time; finished ones are kept, so the script can be stopped and go on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sdft_cli.runs import results
from sdft_cli.runs.metrics import validation
from sdft_cli.stats import selection
from sdft_cli.stats.across_seeds import seed_mean, seed_test

TASKS = ("micro-tooluse", "micro-science", "micro-medical")
GRID = ("5e-5", "1e-4", "2e-4", "4e-4")
SEEDS = ("0", "1", "2")
ABLATIONS = {
    "reverse KL": ["divergence=reverse_kl"],
    "frozen teacher": ["teacher=frozen"],
    "live teacher": ["teacher=live"],
    "JSD beta=0.5": ["divergence=jsd"],
}


def train(out: Path, data: Path, method: str, seed: int | str, sets: list[str]) -> Path:
    """One run, unless it is finished; output goes to a log beside it."""
    if (out / "done.json").is_file():
        return out
    words = [sys.executable, "-m", "sdft_cli", "train", "--tasks", ",".join(TASKS), "--method", method]
    words += ["--model", "micro", "--data", str(data), "--suite", "micro", "--seed", str(seed), "--out", str(out)]
    for text in ["threads=1", *sets]:
        words += ["--set", text]
    if (out / "recipe.json").is_file():
        words.append("--resume")
    with out.with_name(f"{out.name}.log").open("a") as log:
        subprocess.run(words, check=True, stdout=log, stderr=log)
    return out


def candidate(run: Path, lr: str) -> selection.Candidate:
    """What the rule needs to know of a run."""
    loaded = results.load_run(run)
    found = validation(loaded.evals, len(TASKS), loaded.endings)
    assert found is not None, f"{run} has no validation accuracy: is eval_every 0?"
    return selection.Candidate(*found, float(lr))


def row(run: Path) -> dict[str, float]:
    """What the tables show of one run."""
    r = results.load_run(run)
    assert r.prior is not None
    after = {f"stage {k}": r.matrix[k][k - 1] for k in (1, 2, 3)}
    found: dict[str, Any] = {**after, "average": r.metrics["average_accuracy"], "BWT": r.metrics["backward_transfer"]}
    return {**found, "prior": r.prior[-1], "prior change": r.metrics["prior_change"]}


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    heads = list(next(iter(rows.values())))
    print(f"\n### {title}\n\n| | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(f'{cells[h]:+.3f}' if h in SIGNED else f'{cells[h]:.3f}' for h in heads)} |")


SIGNED = ("BWT", "prior change")


def over_seeds(rows: list[dict[str, float]]) -> dict[str, str]:
    """Mean and 95 % t-interval over seeds."""
    cells = {}
    for head in rows[0]:
        mean, span = seed_mean([r[head] for r in rows])
        cells[head] = f"{mean:+.3f}" if head in SIGNED else f"{mean:.3f}"
        cells[head] += f" [{span[0]:.3f}, {span[1]:.3f}]" if span else ""
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--skip-ablations", action="store_true")
    parser.add_argument("--grid", default=",".join(GRID))
    parser.add_argument("--seeds", default=",".join(SEEDS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data, rates, all_seeds = args.out / "data", args.grid.split(","), args.seeds.split(",")
    subprocess.run([sys.executable, "-m", "sdft_cli", "prepare", "--data", str(data)], check=True)
    pool = ThreadPoolExecutor(args.jobs)

    def start(name: str, method: str, seed: int | str, sets: list[str]) -> Any:
        return pool.submit(train, args.out / name, data, method, seed, sets)

    grid = {(m, lr): start(f"{m}-{lr}-0", m, 0, [f"lr={lr}"]) for m in ("sdft", "sft") for lr in rates}
    chosen = {}
    for method in ("sdft", "sft"):
        runs = {lr: grid[method, lr].result() for lr in rates}
        found = {lr: candidate(run, lr) for lr, run in runs.items()}
        chosen[method] = rates[selection.pick(list(found.values()))]
        mark = {chosen[method]: " *"}
        table = {lr + mark.get(lr, ""): {"validation": found[lr].accuracy, **row(run)} for lr, run in runs.items()}
        show(f"{method}: the grid (seed 0; * chosen)", table)
    seeds = {m: [start(f"{m}-{lr}-{s}", m, s, [f"lr={lr}"]) for s in all_seeds] for m, lr in chosen.items()}
    by_seed = {m: [row(f.result()) for f in futures] for m, futures in seeds.items()}
    for method, rows in by_seed.items():
        show(f"{method}, lr {chosen[method]}, by seed", {f"seed {s}": r for s, r in zip(all_seeds, rows, strict=True)})
    print("\n### mean over seeds with 95 % t-interval\n")
    for method, rows in by_seed.items():
        print(f"* {method}: " + "; ".join(f"{k} {v}" for k, v in over_seeds(rows).items()))
    gap = [a["average"] - b["average"] for a, b in zip(by_seed["sdft"], by_seed["sft"], strict=True)]
    print(f"* sdft - sft, average accuracy: {seed_test(gap)}")
    if not args.skip_ablations:
        lr = chosen["sdft"]
        runs = {n: start(f"ablation-{n.replace(' ', '-')}", "sdft", 0, [f"lr={lr}", *s]) for n, s in ABLATIONS.items()}
        rows = {n: row(f.result()) for n, f in runs.items()}
        show(f"SDFT ablations (lr {lr}, seed 0)", {"forward KL, EMA 0.01": by_seed["sdft"][0], **rows})


if __name__ == "__main__":
    main()
