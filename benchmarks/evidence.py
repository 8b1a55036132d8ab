"""Many trainings of a real model at once on one device: the runs behind docs/real-model.md.

    python benchmarks/evidence.py --model FOLDER --out runs/evidence [--jobs 14] [--until 3600] [--order seq0,probe,…]

A process that has imported everything forks one child per job, up to ``--jobs`` at a time, so that a run of seconds
does not begin with ten seconds of imports. Each job runs the real commands (`sdft probe`, `sdft train`, `sdft eval`);
its output goes to ``logs/``. After ``--until`` seconds, what is still running is killed; what is finished stays. Runs
of one group have one rule: the same batch, steps and evaluations, and a grid of rates for each method.

    seqN    SFT and SDFT on the three tasks of the desk in a row, seed N; then KL to the base, chats and ``--prior``
    demoN   the same with the steps and batch of `sdft demo`
    oneN    on desk-triage alone: SDFT at other temperatures, with another divergence, for longer and with an adapter;
            offline-distill and sft-from-teacher
    viewN   SDFT on desk-triage with other views
    rowN    SDFT on the three tasks in a row with other teachers and views
    probe   the recipe that `sdft probe` advises for each task, as it is, ``--seeds`` seeds
    old     the defaults before there was a probe: the paper's view, skip_first=3, temperature 1

On a GPU that many processes share, NVIDIA's MPS triples what they get done: start ``nvidia-cuda-mps-control -d`` first.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from evidence_jobs import ORDER, TASKS, Job, Plan

for _key, _value in {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}.items():
    os.environ.setdefault(_key, _value)

#: Each a chat of one or two turns of the user's.
CHATS = (
    ("Hi! Can you tell me what the capital of France is?",),
    ("What is 12 plus 7?", "And twice that?"),
    ("Write a short thank-you note to a neighbour who watered my plants.",),
    ("Explain in two sentences why the sky is blue.",),
    ("Give me three names for a small bakery.",),
)


# --- what a child does -----------------------------------------------------------------------------------------------


def work(job: Job, given: argparse.Namespace) -> int:
    """The job's commands, and the comparison with the base; returns the worst exit code."""
    from sdft_cli.cli import app

    def cli(argv: list[str]) -> int:
        print("$ sdft", *argv, flush=True)
        sys.argv = ["sdft", *argv]
        began = time.monotonic()
        try:
            app.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        print(f"exit {code} after {time.monotonic() - began:.1f} s", flush=True)
        return code

    worst = 0
    for argv in job.commands:
        worst = max(worst, code := cli(argv))
        if code and argv[0] == "probe":
            return worst
    if job.name == "base":
        measure_base(given)
    if job.measured and not worst:
        compare(job.measured, given)
    if job.prior and job.measured and not worst:
        where = ["--out", str(given.out / "prior" / job.name), *json.loads(given.prior)]
        worst = max(worst, cli(["eval", str(last_model(max((job.measured / "stages").iterdir()))), *where]))
    return worst


def last_model(stage: Path) -> Path:
    """The model after a stage."""
    return max(step for step in stage.iterdir() if step.name.startswith("step-")) / "model"


def load(where: Path, given: argparse.Namespace) -> Any:
    from sdft_cli.config.recipe import Runtime
    from sdft_cli.models import pretrained

    return pretrained.load(str(where), Runtime(dtype="float32", device=given.device, threads=1))


def written(policy: Any, prompts: list[list[int]], new_tokens: int, greedy: bool) -> list[Any]:
    from sdft_cli.config.recipe import EngineSettings, Sampler
    from sdft_cli.engines.transformers import TransformersEngine

    engine = TransformersEngine(policy, EngineSettings(max_batch=512))
    return engine.sample(prompts, Sampler(), new_tokens, seed=7, greedy=greedy)


def measure_base(given: argparse.Namespace) -> None:
    """What the base writes at temperature 1 to the prompts of the suite, and its chats."""
    from sdft_cli.suites import everyday

    policy = load(given.model, given)
    prompts = [policy.chat.view_ids(e, e.prompt) for part in everyday.parts().values() for e in part]
    prompts = prompts[:8] if given.quick else prompts
    rollouts = written(policy, prompts, 64, greedy=False)
    rows = [[list(prompt), rollout.ids] for prompt, rollout in zip(prompts, rollouts, strict=True)]
    draft = given.out / "base.json.part"
    draft.write_text(json.dumps({"rows": rows, "chats": chats(policy, given)}))
    draft.rename(given.out / "base.json")


def compare(run: Path, given: argparse.Namespace) -> None:
    """KL(base || model) on what the base has written after each stage, and chats with the last model."""
    from sdft_cli.evaluation import divergences
    from sdft_cli.models.batching import Row

    known = json.loads((given.out / "base.json").read_text())
    base = load(given.model, given)
    rows = [Row(prompt, ids, [1.0] * len(ids), prompt) for prompt, ids in known["rows"] if ids]
    found: dict[str, Any] = {}
    for stage in sorted((run / "stages").iterdir()):
        policy = load(last_model(stage), given)
        found[stage.name] = divergences.summarize(divergences.per_token(policy, rows, 8192, base.core), 0)
    (run / "base.json").write_text(json.dumps({"kl": found, "chats": chats(policy, given)}))


def brief(scores: dict[str, Any]) -> str:
    """Accuracies in hundredths: the tasks, and the suite."""
    marks = " ".join(f"{task['accuracy'] * 100:.0f}" for task in scores["tasks"].values())
    return f"{marks} | {scores['suite']['accuracy'] * 100:.0f}" if scores.get("suite") else marks


def told(run: Path) -> str:
    """Accuracy of every task and of the suite at every evaluation, in two digits; KL to the base after the stages."""
    text = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        each = json.loads(line)
        if each["kind"] == "eval":
            text.append(f"{each['stage']}.{each['step']} " + brief({"tasks": each["scores"], "suite": each["suite"]}))
    for scores in sorted((run / "evals").glob("*/scores.json")):
        found = json.loads(scores.read_text())
        text.append(f"{scores.parent.name[:2]} {brief(found)}")
    if (facts := run / "base.json").exists():
        stages = json.loads(facts.read_text())["kl"].values()
        text.append("KL " + " ".join(f"{stage['forward']['value']:.2f}" for stage in stages))
    return " ; ".join(text)


def chats(policy: Any, given: argparse.Namespace) -> list[list[dict[str, str]]]:
    """Greedy answers to `CHATS`, and to the first test rows of every task."""
    talks = [[{"role": "user", "content": turns[0]}] for turns in CHATS]
    for task in TASKS:
        for line in (given.out / "data" / task / "test.jsonl").read_text().splitlines()[:3]:
            talks.append([{"role": "user", "content": json.loads(line)["prompt"][-1]["content"]}])
    again = [(talk, turns[1]) for talk, turns in zip(talks, CHATS, strict=False) if len(turns) > 1]
    answer(policy, talks)
    for talk, turn in again:
        talk.append({"role": "user", "content": turn})
    answer(policy, [talk for talk, _ in again])
    return talks


def answer(policy: Any, talks: list[list[dict[str, str]]]) -> None:
    prompts = [policy.chat.prompt_ids(talk) for talk in talks]
    for talk, rollout in zip(talks, written(policy, prompts, 96, greedy=True), strict=True):
        talk.append({"role": "assistant", "content": policy.chat.decode(rollout.ids)})


# --- the queue -------------------------------------------------------------------------------------------------------


def import_everything() -> None:
    """All of the package but what needs vLLM, so that no child has to."""
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import sdft_cli

    for module in pkgutil.walk_packages(sdft_cli.__path__, "sdft_cli."):
        if "vllm" not in module.name and "__main__" not in module.name:
            importlib.import_module(module.name)


def start(job: Job, given: argparse.Namespace) -> int:
    """The process that does the job, in a session of its own."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        log = os.open(given.out / "logs" / f"{job.name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = work(job, given)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def run(queue: list[Job], given: argparse.Namespace) -> int:
    """Every job, or as many as the time allows; returns how many failed or were not done."""
    began, failed = time.monotonic(), 0
    running: dict[int, tuple[Job, float]] = {}
    while queue or running:
        if time.monotonic() - began > given.until:
            for pid in running:
                with contextlib.suppress(ProcessLookupError):  # it is no session yet, or none any more
                    os.killpg(pid, signal.SIGKILL)
            left = [job.name for job, _ in running.values()] + [job.name for job in queue]
            print(f"time is up; not done: {', '.join(left)}")
            return failed + len(left)
        while queue and len(running) < given.jobs:
            job = queue.pop(0)
            running[start(job, given)] = job, time.monotonic()
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            time.sleep(0.1)
            continue
        job, since = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        failed += bool(code)
        now = time.monotonic()
        print(f"{now - began:6.0f} s  {job.name}: {now - since:.0f} s{f', exit {code}' if code else ''}", flush=True)
        runs = given.out / "runs"
        for each in sorted({*runs.glob(job.name), *runs.glob(f"{job.name}-s*")}):
            with contextlib.suppress(OSError, KeyError, ValueError, TypeError):  # unfinished, or not scored
                print(f"    {each.name}  {told(each)}", flush=True)
            if given.lean and not code:
                shutil.rmtree(each / "stages", ignore_errors=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder")
    parser.add_argument("--out", type=Path, required=True, help="the folder of all runs")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds in all")
    parser.add_argument("--order", default=ORDER, help="groups in order, with their seeds")
    parser.add_argument("--only", nargs="*", default=[], help="only jobs whose name contains one of these")
    parser.add_argument("--prior", default="", help="flags of `sdft eval` for the harness's benchmarks, as a JSON list")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=48, help="steps of a stage")
    parser.add_argument("--temperature", type=float, default=0.7, help="SDFT's, for sampling and in the divergence")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the group probe")
    parser.add_argument("--lean", action="store_true", help="remove a run's models once they are measured")
    parser.add_argument("--quick", action="store_true", help="two steps and few rows, to see whether everything runs")
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent))
    for folder in ("logs", "runs", "prior"):
        (given.out / folder).mkdir(parents=True, exist_ok=True)
    prepare = ["prepare", "--tasks", ",".join(TASKS), "--data", str(given.out / "data")]
    if not (given.out / "data").exists():
        subprocess.run([sys.executable, "-m", "sdft_cli", *prepare], check=True, stdout=subprocess.DEVNULL)
    import_everything()
    jobs = [job for job in Plan(given).jobs() if not given.only or any(word in job.name for word in given.only)]
    if run([Job("base")], given):
        return 1  # the others compare with it
    if given.prior:
        where = ["--out", str(given.out / "prior" / "base"), *json.loads(given.prior)]
        jobs.insert(0, Job("base-prior", [["eval", str(given.model), *where]]))
    return min(1, run(jobs, given))


if __name__ == "__main__":
    sys.exit(main())
