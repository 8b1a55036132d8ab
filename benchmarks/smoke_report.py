"""What the jobs and checks of `smoke` have found: facts of every run, resumed weights, and a summary."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MICRO = Path(__file__).resolve().parents[1] / "sdft_cli" / "micro" / "model" / "model.safetensors"
LOGS = 5  # files of failed jobs that are kept one by one


def look(job: Any, place: Path) -> None:
    """Facts of a training: how it sampled and scored, its steps, and whether they are finite."""
    file = place / job.name / "metrics.jsonl"
    if not file.is_file():
        return
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "step"]
    for row in rows:
        if row["kind"] == "model":
            job.facts |= {"sampling": row["sampling"], "scoring": row["scoring"]}
    job.facts |= {
        "steps": len(steps),
        "losses": [row["loss"] for row in steps],
        "gap": max((row.get("logprob_gap") or 0.0 for row in steps), default=0.0),
        "memory": [row["memory"] for row in steps if "memory" in row],
        "seconds_of_steps": [row["seconds"] for row in steps],
    }
    if job.status == "ok" and not (steps and all(math.isfinite(loss) for loss in job.facts["losses"])):
        job.status = f"FAILED: losses {job.facts['losses']}"


def weights(file: Path) -> Any:
    """All numbers of a safetensors file end to end, by name, in fp32."""
    import numpy as np

    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, parts = json.loads(data[8 : 8 + size]), []
    for name in sorted(set(header) - {"__metadata__"}):
        begin, end = (8 + size + at for at in header[name]["data_offsets"])
        kind = header[name]["dtype"]
        raw = np.frombuffer(data[begin:end], np.uint16 if kind == "BF16" else np.float32)
        parts.append((raw.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else raw)
    return np.concatenate(parts)


def final(folder: Path) -> Any:
    """The weights of a run's last stage."""
    return weights(max(folder.glob("stages/*/step-*/model/model.safetensors")))


def resumption(place: Path, dtype: str, device: str) -> Iterable[dict[str, Any]]:
    """The resumed run against one that nobody stopped, and this against its repetition: the device's own noise."""
    import numpy as np

    whole, base = final(place / f"whole-{dtype}"), weights(MICRO)
    for which in ("again", "resumed"):
        other = final(place / f"{which}-{dtype}")
        value = float(np.linalg.norm(other - whole) / np.linalg.norm(whole - base))
        largest = float(np.abs(other - whole).max())
        said = "equal bit by bit" if largest == 0 else f"largest difference {largest:.1e}"
        limit = 0.3 if device.startswith("cuda") else 0.0
        what = f"{which} {dtype}: weights unlike the undisturbed run's, share of the movement ({said})"
        yield {"what": what, "value": value, "limit": limit, "ok": value <= limit}


def summary(done: list[Any], checks: list[dict[str, Any]], late: list[str]) -> str:
    """Failures first, then the worst of every group of checks, then the jobs."""
    bad = [f"{job.name}: {job.status}" for job in done if job.status != "ok"]
    bad += [
        f"{c['what']}" + (f": {c['value']:.2e} > {c['limit']:.0e}" if "value" in c else "")
        for c in checks
        if not c["ok"]
    ]
    groups: dict[str, dict[str, Any]] = {}
    for check in checks:
        if "value" in check:
            words = check["what"].split(":")[0] if ":" in check["what"] else " ".join(check["what"].split()[:2])
            worst = groups.setdefault(words, check)
            if check["value"] / max(check["limit"], 1e-9) > worst["value"] / max(worst["limit"], 1e-9):
                groups[words] = check
    fine = sum(job.status == "ok" for job in done), sum(check["ok"] for check in checks)
    head = f"-- {len(bad)} to look at; {fine[0]} of {len(done)} jobs and {fine[1]} of {len(checks)} checks ok"
    lines = [head, *(f"-- checks of {each}" for each in late), *(each[:330] for each in bad[:28])]
    lines.append("-- nearest to its limit, of each group of checks")
    lines += [f"{c['what']}: {c['value']:.1e} of {c['limit']:.0e}"[:160] for c in list(groups.values())[:18]]
    ran = [f"{j.name} {j.seconds:.0f}s gap {j.facts.get('gap', 0):.1e}" for j in done if j.status == "ok"]
    lines += [
        "-- jobs that ran (seconds, mean log-prob gap)",
        *("; ".join(ran[i : i + 5]) for i in range(0, len(ran), 5)),
    ]
    ways = sorted({f"{j.facts['sampling']} | {j.facts['scoring']}" for j in done if "sampling" in j.facts})
    return "\n".join([*lines, *(f"-- {way}"[:200] for way in ways[:6])])


def report(every: list[Any], file: Path, place: Path, given: argparse.Namespace, late: list[str], began: float) -> int:
    """Write smoke.json and the logs, print what matters; returns the exit code."""
    for job in every:
        look(job, place)
    checks = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for dtype in ("bfloat16", "float32"):
        with contextlib.suppress(ValueError, OSError):  # one of the runs has not ended: its own line says so
            checks += resumption(place, dtype, given.device)
    for check in checks:
        figures = [f"{check[key]:.2e}" for key in ("value", "limit") if key in check]
        print("ok " if check["ok"] else "BAD", check["what"], *figures)
    found = {job.name: {"status": job.status, "seconds": job.seconds, **job.facts} for job in every}
    facts = {"jobs": found, "checks": checks, "late": late, "seconds": time.monotonic() - began}
    (given.out / "smoke.json").write_text(json.dumps(facts, indent=1) + "\n")
    logs = {log.stem: log.read_text(errors="replace") for log in sorted(place.glob("*.log"))}
    (given.out / "logs.txt").write_text("\n".join(f"=== {name}\n{text}" for name, text in logs.items()))
    for job in [job for job in every if job.status.startswith("FAILED")][:LOGS]:
        (given.out / f"{job.name}.log").write_text(logs.get(job.name, ""))
    print(summary(every, checks, late))
    print(f"{time.monotonic() - began:.0f} seconds in all; {given.out / 'smoke.json'}")
    right = all(check["ok"] for check in checks) and all(job.status.startswith(("ok", "refused")) for job in every)
    return 0 if right and not late else 1
