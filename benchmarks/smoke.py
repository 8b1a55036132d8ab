"""The first two minutes on a GPU: does every kind of run work there, and is what it computes right?

    python benchmarks/smoke.py --out FOLDER [--device cuda] [--budget 120] [--jobs 12] [--only WORD ...]

Runs short jobs of the command line on the embedded model, several at once, and beside them `smoke_checks`. At the end
of ``--budget`` seconds whatever still runs is killed, and said to be. FOLDER gets smoke.json, logs.txt with all
that was printed, and NAME.log of the first few jobs that failed; the last lines on the screen hold what matters.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoke_report import report

HERE = Path(__file__).resolve().parent
TASKS = ("micro-science", "micro-tooluse", "micro-almanac")
#: What every training job has; later ``--set`` win.
COMMON = (
    *("train.max_steps=4", "train.batch=16", "train.eval_every=0", "train.checkpoint_every=0", "train.lr=1e-4"),
    *("evaluation.limit=2", "sampler.max_new_tokens=24", "runtime.threads=1"),
)
#: Steps, the step between whose end and checkpoint the resumed run dies, and how often checkpoints are made.
RESUMED, DIES_AT, EVERY = 6, 3, 2
SECONDS = 90.0
#: Jobs that need a further package.
BESIDE = {"flash": "flash_attn", "adamw8bit": "bitsandbytes", "vllm": "vllm", "lora": "peft", "fp32-lora": "peft"}
#: The checks, by process: a kernel that crashes takes the others of its process along.
CHECKED = (("models",), ("settings", "fused", "optimizer"), ("teacher",), ("memory",))


@dataclass
class Job:
    """Commands in a row; ``may_refuse``: an error in one line that names a missing package is an answer as well."""

    name: str
    commands: list[list[str]]
    may_refuse: bool = False
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    seconds: float = 0.0
    status: str = "waiting"
    facts: dict[str, Any] = field(default_factory=dict)


def trainings() -> list[tuple[str, str, str]]:
    """Name, method and settings of the jobs that only train. A word with a dash is an option."""
    bf16, fp32 = "runtime.dtype=bfloat16", "runtime.dtype=float32"
    rows = [
        ("grpo", "grpo", bf16),
        ("lora", "sdft", f"{bf16} lora.rank=8 lora.dropout=0.1 train.gradient_checkpointing=on"),
        (
            "ema-cpu",
            "sdft",
            f"{bf16} teacher.storage=cpu train.gradient_checkpointing=on objective.divergence=reverse_kl",
        ),
        ("ema-half", "sdft", f"{bf16} teacher.storage=half train.master=stochastic objective.divergence=jsd"),
        ("prefetch", "sdft", f"{bf16} engine.prefetch=1 objective.importance_cap=2.0 train.updates=2"),
        ("sdpo", "sdpo", bf16),
        ("rlsd", "rlsd", bf16),
        (
            "sft",
            "sft",
            f"{bf16} train.micro_batch_tokens=128 train.eval_every=2 train.best=use --tasks={TASKS[0]},{TASKS[1]}",
        ),
        (
            "fp32",
            "sdft",
            f"{fp32} objective.divergence=reverse_kl objective.estimator=rao_blackwell teacher.update_every=2",
        ),
        ("fp32-lora", "sdft", f"{fp32} lora.rank=8 lora.merge=stage engine.prefetch=1"),
        ("eager", "sdft", f"{bf16} runtime.attention=eager objective.divergence_top_k=20 engine.max_batch=5"),
        ("opsd", "opsd", f"{bf16} objective.skip_first=auto"),
        ("reinvoke", "reinvoke", f"{bf16} second_phase.train.max_steps=2 general=GENERAL"),
        ("dft", "dft", f"{bf16} runtime.attention=sdpa train.master=stochastic"),
        ("cpt", "cpt", f"{bf16} --tasks={TASKS[2]}"),
        ("offline-distill", "offline-distill", bf16),
        ("sft-from-teacher", "sft-from-teacher", f"{fp32} sampler.top_p=0.9 sampler.temperature=0.8"),
        ("flex", "sft", f"{bf16} runtime.attention=flex_attention"),
        ("flash", "sft", f"{bf16} runtime.attention=flash_attention_2"),
        ("adamw8bit", "sdft", f"{bf16} train.optimizer=adamw8bit"),
        ("vllm", "sdft", f"{bf16} engine.name=vllm"),
    ]
    return [row for row in rows if row[0] not in lacking()]


def lacking() -> dict[str, str]:
    """The jobs that cannot run here, and the package that each of them lacks."""
    return {name: package for name, package in BESIDE.items() if not importlib.util.find_spec(package)}


def training(place: Path, name: str, method: str, settings: str, device: str) -> list[str]:
    """The command of one training."""
    words = settings.replace("GENERAL", str(place / "general.jsonl")).split()
    tasks = [word for word in words if word.startswith("--tasks=")] or [f"--tasks={TASKS[0]}"]
    sets = [*COMMON, f"runtime.device={device}", *(word for word in words if not word.startswith("--"))]
    flags = [flag for each in sets for flag in ("--set", each)]
    where = ["--data", str(place / "data"), "--out", str(place / name)]
    return ["train", *tasks[0].split("="), "--method", method, *where, *flags]


def jobs(place: Path, device: str) -> list[Job]:
    """All jobs, the longest first."""
    more = f"train.max_steps={RESUMED} train.checkpoint_every={EVERY}"
    made = []
    for dtype in ("bfloat16", "float32"):
        given = ("sdft", f"runtime.dtype={dtype} {more}", device)
        dies = ["DIES", *training(place, f"resumed-{dtype}", *given)]
        resume = ["train", "--resume", "--out", str(place / f"resumed-{dtype}")]
        made.append(Job(f"resumed-{dtype}", [dies, resume]))
        made += [Job(f"{which}-{dtype}", [training(place, f"{which}-{dtype}", *given)]) for which in ("whole", "again")]
    evaluated = ["--suite", "micro", "--set", "train.eval_every=2", "--set", f"runtime.device={device}"]
    main = training(place, "sdft", "sdft", "runtime.dtype=bfloat16", device)
    scoring = ["eval", str(place / "sdft"), "--suite", "new", "--also", "kl,ceiling", "--limit", "4", "--no-cache"]
    report = ["report", str(place / "sdft"), "--out", str(place / "report")]
    made.insert(0, Job("sdft", [[*main, *evaluated], scoring, report]))
    probe = ["probe", "--tasks", TASKS[0], "--quick", "--limit", "8", "--data", str(place / "data")]
    sets = [f"runtime.device={device}", "runtime.dtype=bfloat16", "train.batch=8", "sampler.max_new_tokens=24"]
    made.insert(1, Job("probe", [[*probe, *(flag for each in sets for flag in ("--set", each))]]))
    rows = [row for row in trainings() if row[0] != "flex" or device.startswith("cuda")]  # no gradients on a CPU
    return made + [Job(row[0], [training(place, *row, device)], row[0] in ("flex", "flash")) for row in rows]


# running -----------------------------------------------------------------------------------------------------


def start(job: Job, folder: Path) -> None:
    """Begin the job's next command; it prints into the job's log."""
    command = job.commands.pop(0)
    job.facts["dies"] = command[0] == "DIES"
    call = [sys.executable, str(HERE / "smoke.py"), *command] if job.facts["dies"] else python(command)
    if job.status == "waiting":
        job.began, job.status = time.monotonic(), "running"
    with (folder / f"{job.name}.log").open("ab") as log:
        log.write(f"$ {' '.join(call)}\n".encode())
        log.flush()
        job.process = subprocess.Popen(
            call, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment()
        )


def python(command: list[str]) -> list[str]:
    """A call of the command line."""
    return [sys.executable, "-m", "sdft_cli", *command]


def environment() -> dict[str, str]:
    """One thread each, no network, and the package beside this script."""
    root, path = str(HERE.parent), os.environ.get("PYTHONPATH")
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "NO_COLOR": "1"}
    return {**os.environ, **own, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root, "COLUMNS": "200"}


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(waiting: list[Job], folder: Path, at_once: int, deadline: float) -> None:
    """Run the jobs, ``at_once`` at a time, until they have ended or the time is up."""
    running: list[Job] = []
    while (waiting or running) and time.monotonic() < deadline:
        while waiting and len(running) < at_once:
            job = waiting.pop(0)
            start(job, folder)
            running.append(job)
        time.sleep(0.05)
        for job in running:
            assert job.process is not None
            job.seconds = time.monotonic() - job.began
            if (code := job.process.poll()) is not None:
                judge(job, code, folder)
            elif job.seconds > SECONDS:
                kill(job.process)
                job.status = f"killed after {job.seconds:.0f} s"
        running = [job for job in running if job.status == "running"]
    for job in running:
        assert job.process is not None
        kill(job.process)
        job.status = f"killed at the deadline, after {job.seconds:.0f} s"


def judge(job: Job, code: int, folder: Path) -> None:
    """What the end of a command says; the job's next one begins where there is one."""
    if code == (-signal.SIGKILL if job.facts["dies"] else 0):
        if job.commands:
            start(job, folder)
        else:
            job.status = "ok"
        return
    text = (folder / f"{job.name}.log").read_text(errors="replace")
    reason = explain(text.rpartition("\n$ ")[2])
    refused = job.may_refuse and code == 2
    job.status = f"{'refused' if refused else f'FAILED ({code})'}: {reason}"


def explain(text: str) -> str:
    """The exception and its last frame in the package, or the error in one line."""
    frames = re.findall(r'File ".*?(sdft_cli/[^"]+)", line (\d+), in (\S+)', text)
    raised = re.findall(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt|Unsupported)\b.*", text, re.M)
    said = re.findall(r"^error: .*", text, re.M)
    line = (raised or said or text.strip().splitlines() or ["nothing was printed"])[-1]
    return line[:250] + (f"  [{frames[-1][0]}:{frames[-1][1]} {frames[-1][2]}]" if frames else "")


# the whole ------------------------------------------------------------------------------------------------


def prepare(place: Path) -> None:
    """The tasks' data, and general prompts for a second phase."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["prepare", "--tasks", ",".join(TASKS), "--data", str(place / "data")]
    subprocess.run(python(command), check=True, env=environment(), stdout=subprocess.DEVNULL)
    rows = (place / "data" / TASKS[1] / "train.jsonl").read_text().splitlines()[:32]
    prompts = [json.dumps({key: json.loads(row)[key] for key in ("id", "prompt")}) for row in rows]
    (place / "general.jsonl").write_text("\n".join(prompts) + "\n")


def die() -> None:
    """The command line, killed after a step as by the machine's end."""
    from sdft_cli.cli.app import main as command_line
    from sdft_cli.training.trainer import PhaseTrainer

    step = PhaseTrainer.step

    def once(self: PhaseTrainer, number: int) -> Any:
        facts = step(self, number)
        if number == DIES_AT - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return facts

    PhaseTrainer.step = once  # type: ignore[method-assign]
    sys.argv = ["sdft", *sys.argv[2:]]
    command_line()


def main() -> int:
    if sys.argv[1:2] == ["DIES"]:
        die()
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of logs and results; it may not exist yet")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds in all")
    parser.add_argument("--jobs", type=int, default=12, help="jobs at once, beside the checks")
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="only jobs whose name contains one of these; no checks"
    )
    given = parser.parse_args()
    began = time.monotonic()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="smoke-") as folder:
        return whole(given, Path(folder), began)


def whole(given: argparse.Namespace, place: Path, began: float) -> int:
    """The checks and the jobs until the deadline, in ``place``; then what they have found."""
    deadline, file = began + given.budget - 6, place / "checks.jsonl"
    checking = [] if given.only else [start_checks(place, file, names, given.device) for names in CHECKED]
    prepare(place)
    every = [j for j in jobs(place, given.device) if not given.only or any(word in j.name for word in given.only)]
    run(list(every), place, given.jobs, deadline)
    print("not run:", ", ".join(f"{name} (no {package})" for name, package in lacking().items()) or "nothing")
    late = []
    for names, process in zip(CHECKED, checking, strict=False):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
        if process.returncode != 0:
            late.append(f"{', '.join(names)}: " + ("killed late" if process.returncode is None else "crashed"))
            kill(process)
    return report(every, file, place, given, late, began)


def start_checks(place: Path, file: Path, names: tuple[str, ...], device: str) -> subprocess.Popen[bytes]:
    """A process with some of the checks."""
    call = [sys.executable, str(HERE / "smoke_checks.py"), str(file), "--device", device, "--only", *names]
    with (place / f"checks-{names[0]}.log").open("wb") as log:
        return subprocess.Popen(call, stdout=log, stderr=log, start_new_session=True, env=environment())


if __name__ == "__main__":
    sys.exit(main())
