"""Many trainings of a real model at once on one device: the runs behind docs/real-model.md.

    python benchmarks/evidence.py --model FOLDER --out runs/evidence [--jobs 14] [--until 3600] [--order seq0,probe,…]

A process that has imported everything forks one child per job, up to ``--jobs`` at a time, so that a run of seconds
does not begin with ten seconds of imports. Each job runs the real commands (`sdft probe`, `sdft train`, `sdft eval`);
its output goes to ``logs/``. After ``--until`` seconds, what is still running is killed; what is finished stays. Runs
of one group have one rule: the same batch, steps and evaluations, and a grid of rates for each method.

    seqN    SFT and SDFT on the three tasks of the desk in a row, seed N; then KL to the base, chats and ``--prior``
    oneN    offline-distill, sft-from-teacher and SDFT with an adapter on desk-triage, seed N
    viewN   SDFT on desk-triage with other views
    tempN   SDFT on desk-triage and desk-orders at other temperatures
    probe   the recipe that `sdft probe` advises for each task, as it is, three seeds
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for _key, _value in {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}.items():
    os.environ.setdefault(_key, _value)

TASKS = ("desk-triage", "desk-orders", "desk-handbook")
RATES = {
    "sft": ("1e-5", "2e-5", "5e-5"),
    "sdft": ("5e-5", "1e-4", "2e-4"),
    "offline-distill": ("2e-5", "5e-5", "1e-4"),
    "sft-from-teacher": ("1e-5", "2e-5", "5e-5"),
    "lora": ("5e-4", "1e-3"),
}
VIEWS = ("demonstration", "demonstration-official", "demonstration-system", "answer")
TEMPERATURES = ("1", "0.7", "0.5", "0.3")
ORDER = "seq0,probe,temp0,old,seq1,one0,view0,seq2,one1,view1"
#: View, lr, temperatures of the sampler and of the divergence, and what else.
LOOKS = {
    "plain-5e-5": ("demonstration-plain", "5e-5", "0.5", "0.5", ""),
    "plain-1e-4": ("demonstration-plain", "1e-4", "0.5", "0.5", ""),
    "plain-1e-4-frozen": ("demonstration-plain", "1e-4", "0.5", "0.5", "frozen"),
    "plain-5e-5-frozen": ("demonstration-plain", "5e-5", "0.5", "0.5", "frozen"),
    "s5l1-1e-4": ("demonstration-plain", "1e-4", "0.5", "1", ""),
    "s5l1-2e-4": ("demonstration-plain", "2e-4", "0.5", "1", ""),
    "s5l1-1e-4-frozen": ("demonstration-plain", "1e-4", "0.5", "1", "frozen"),
    "s3l1-1e-4": ("demonstration-plain", "1e-4", "0.3", "1", ""),
    "turn-1e-4": ("demonstration-turn", "1e-4", "0.5", "0.5", ""),
    "turn-1e-4-frozen": ("demonstration-turn", "1e-4", "0.5", "0.5", "frozen"),
    "lora-1e-3": ("demonstration-plain", "1e-3", "0.5", "0.5", "lora"),
}
#: Each a chat of one or two turns of the user's.
CHATS = (
    ("Hi! Can you tell me what the capital of France is?",),
    ("What is 12 plus 7?", "And twice that?"),
    ("Write a short thank-you note to a neighbour who watered my plants.",),
    ("Explain in two sentences why the sky is blue.",),
    ("Give me three names for a small bakery.",),
)


@dataclass
class Job:
    """Commands that are run one after the other in one process. ``measured`` is the run whose last model is compared
    with the base afterwards, ``prior`` whether it also takes the harness's benchmarks."""

    name: str
    commands: list[list[str]] = field(default_factory=list)
    measured: Path | None = None
    prior: bool = False


class Plan:
    """The jobs of every group."""

    def __init__(self, given: argparse.Namespace):
        self.given, self.out = given, given.out
        self.common = ["--model", str(given.model), "--data", str(given.out / "data"), "--set", "threads=1"]
        self.common += ["--set", f"device={given.device}", "--set", "engine.max_batch=512"]
        every = max(1, given.steps // 2)
        self.size = [f"batch={given.batch}", f"max_steps={given.steps}", f"eval_every={every}", "eval_limit=64"]
        heat = f"{given.temperature:g}"
        self.tempered = [f"sampler.temperature={heat}", f"logits_temperature={heat}"]
        self.plain = ["views.teacher=demonstration-plain", "skip_first=0"]

    def jobs(self) -> list[Job]:
        """In the order of ``--order``."""
        groups: dict[str, Callable[[int], Iterator[Job]]] = {
            "seq": self.seq,
            "one": self.one,
            "view": self.view,
            "temp": self.temp,
            "probe": self.probe,
            "old": self.old,
            "look": self.look,
        }
        found: list[Job] = []
        for what in filter(None, self.given.order.split(",")):
            name = what.rstrip("0123456789")
            found += groups[name](int(what[len(name) :] or 0))
        return found

    def seq(self, seed: int) -> Iterator[Job]:
        for method, sets in (("sdft", [*self.plain, *self.tempered]), ("sft", [])):
            for lr in RATES[method]:
                yield self._job(f"seq-{method}-{lr}-s{seed}", method, TASKS, [f"lr={lr}", *sets], seed, prior=True)

    def one(self, seed: int) -> Iterator[Job]:
        teacher = self.plain[:1]
        for method, sets in (("offline-distill", self.tempered[1:]), ("sft-from-teacher", [])):
            for lr in RATES[method]:
                settings = [f"lr={lr}", *teacher, self.tempered[0], *sets]
                yield self._job(f"one-{method}-{lr}-s{seed}", method, TASKS[:1], settings, seed)
        for lr in RATES["lora"]:
            settings = [f"lr={lr}", "rank=32", *self.plain, *self.tempered]
            yield self._job(f"one-lora-sdft-{lr}-s{seed}", "sdft", TASKS[:1], settings, seed)

    def view(self, seed: int) -> Iterator[Job]:
        for view in VIEWS:
            settings = ["lr=1e-4", f"views.teacher={view}", "skip_first=0", *self.tempered]
            yield self._job(f"view-{view}-s{seed}", "sdft", TASKS[:1], settings, seed)

    def temp(self, seed: int) -> Iterator[Job]:
        for task in TASKS[:2]:
            for heat in TEMPERATURES:
                settings = ["lr=1e-4", *self.plain, f"sampler.temperature={heat}", f"logits_temperature={heat}"]
                yield self._job(f"temp-{heat}-{task}-s{seed}", "sdft", (task,), settings, seed)

    def probe(self, _: int) -> Iterator[Job]:
        for task in TASKS:
            recipe, limit = self.out / f"advised-{task}.toml", "2" if self.given.quick else "48"
            probe = ["probe", "--tasks", task, *self.common, "--limit", limit, "--write-recipe", str(recipe)]
            often = ["eval_every=20", "eval_limit=64"]
            runs = [self._train(f"probe-{task}-s{seed}", None, (task,), often, seed, recipe) for seed in range(self.given.seeds)]
            yield Job(f"probe-{task}", [probe, *runs])

    def look(self, seed: int) -> Iterator[Job]:
        """Three tasks in a row with SDFT: temperatures of sampler and divergence, views, and the base as teacher."""
        frozen = ["teacher.start=base", "teacher.update_rate=0"]
        for name, (view, lr, sampled, compared, more) in LOOKS.items():
            sets = [f"lr={lr}", f"views.teacher={view}", "skip_first=0", *(frozen if "frozen" in more else [])]
            sets += [f"sampler.temperature={sampled}", f"logits_temperature={compared}"]
            sets += ["rank=32"] if "lora" in more else []
            sets += ["importance_cap=none"] if sampled != compared else []
            yield self._job(f"look-{name}-s{seed}", "sdft", TASKS, sets, seed)

    def planned(self, line: str) -> Job:
        """The job of a line of ``--plan``: name, method, sets, seed, and perhaps tasks and prior."""
        given = json.loads(line)
        tasks = tuple(given.get("tasks", TASKS))
        return self._job(given["name"], given["method"], tasks, given["sets"], given["seed"], given.get("prior", False))

    def old(self, _: int) -> Iterator[Job]:
        for task in TASKS:
            settings = ["lr=1e-4", "views.teacher=demonstration", "skip_first=3", *self.size]
            yield self._job(f"old-{task}", "sdft", (task,), settings, 0)

    def _job(
        self, name: str, method: str, tasks: tuple[str, ...], sets: list[str], seed: int, prior: bool = False
    ) -> Job:
        sized = sets if any(s.startswith("batch=") for s in sets) else [*sets, *self.size]
        train = self._train(name, method, tasks, [*sized, "guards.enabled=false"], seed)
        return Job(name, [train], self.out / "runs" / name, prior and bool(self.given.prior))

    def _train(
        self,
        name: str,
        method: str | None,
        tasks: tuple[str, ...],
        sets: list[str],
        seed: int,
        recipe: Path | None = None,
    ) -> list[str]:
        sets = [*sets, "checkpoint_every=0", "best=off", "micro_batch_tokens=2560"]
        if self.given.quick:
            sets += ["max_steps=2", "eval_every=1", "eval_limit=4", "evaluation.limit=2"]
        flags = [x for each in sets for x in ("--set", each)]
        start = ["train", *([str(recipe)] if recipe else []), *(["--method", method] if method else [])]
        start += ["--tasks", ",".join(tasks)]
        run = ["--out", str(self.out / "runs" / name), "--seed", str(seed), "--suite", "everyday"]
        return [*start, *run, *self.common, *flags]


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


class Planned:
    """The jobs of a file's lines, those that are added later too."""

    def __init__(self, plan: Plan, file: Path | None):
        self.plan, self.file, self.taken = plan, file, 0

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        lines = self.file.read_text().splitlines() if self.file and self.file.exists() else []
        if len(lines) <= self.taken:
            raise StopIteration
        self.taken += 1
        return self.plan.planned(lines[self.taken - 1])


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


def run(queue: list[Job], given: argparse.Namespace, more: Iterator[Job]) -> int:
    """Every job, or as many as the time allows, and those that ``more`` yields; returns how many failed or were not
    done."""
    began, failed = time.monotonic(), 0
    running: dict[int, tuple[Job, float]] = {}
    while queue or running or given.wait:
        queue += iter(lambda: next(more, None), None)
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
        for each in sorted((given.out / "runs").glob(f"{job.name}*")):
            with contextlib.suppress(OSError, KeyError, ValueError):
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
    parser.add_argument("--temperature", type=float, default=0.5, help="SDFT's, for sampling and in the divergence")
    parser.add_argument("--plan", type=Path, help="a file with one more job a line, also while it runs")
    parser.add_argument("--wait", action="store_true", help="wait for more lines of --plan until --until")
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
    plan = Plan(given)
    jobs = [job for job in plan.jobs() if not given.only or any(word in job.name for word in given.only)]
    waits, given.wait = given.wait, False
    if run([Job("base")], given, iter(())):
        return 1  # the others compare with it
    if given.prior:
        where = ["--out", str(given.out / "prior" / "base"), *json.loads(given.prior)]
        jobs.insert(0, Job("base-prior", [["eval", str(given.model), *where]]))
    given.wait = waits
    return min(1, run(jobs, given, Planned(plan, given.plan)))


if __name__ == "__main__":
    sys.exit(main())
