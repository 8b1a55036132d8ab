"""SIGKILL at ten random moments of a run, and in the middle of its writes: resumed, it equals the uninterrupted run.

Importing torch and transformers takes far longer than these runs. So one process, the nursery (this file, run as a
script), imports them once and forks one ``python -m sdft_cli`` after the other. As their parent it can also watch their
folders closely enough to kill within a write that takes milliseconds.
"""

from __future__ import annotations

import gc
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.same_runs import assert_same, weights

SEED = 260119897
KILLS, RANDOM, HALF_WRITTEN = 10, 6, 3  # at least: of a kind, of these at any time, of these within a write
WRITING, RENAMED = "stages/*/step-*.tmp", "stages/*/step-??????"  # a checkpoint as it is made, and in its place


# --- the nursery: the parent of every run -------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """When to kill: ``wait`` seconds after the start, or after something new in the run folder matches ``sight``."""

    wait: float = 0.0
    sight: str | None = None


def serve() -> None:
    """One JSON request a line on stdin, one answer a line on stdout, until stdin closes."""
    import peft  # noqa: F401
    import torch
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401

    torch.set_num_threads(1)  # of several threads only the one that forks would live on in the child
    gc.collect()
    gc.freeze()  # otherwise each child spends half a second on looking through all that was imported
    for line in sys.stdin:
        request = json.loads(line)
        moment = Moment(**request["moment"]) if request["moment"] else None
        print(json.dumps(attempt(request["words"], Path(request["out"]), moment)), flush=True)


def attempt(words: list[str], out: Path, moment: Moment | None) -> dict[str, Any]:
    """Fork one run and kill it at ``moment``: its exit code, its seconds, the half-written checkpoints it left."""
    before, began = seen(out, WRITING), time.monotonic()
    pid = os.fork()
    if not pid:
        command(words, out.with_suffix(".log"))
    code = watch(pid, out, moment, began)
    half = sorted(name for name, *_ in seen(out, WRITING) - before)
    return {"code": code, "seconds": round(time.monotonic() - began, 3), "half": half}


def command(words: list[str], log: Path) -> NoReturn:
    """``python -m sdft_cli`` with ``words`` in this process, which ends with it."""
    code: Any = 1
    try:
        for number, target in ((0, Path(os.devnull)), (1, log), (2, log)):
            os.dup2(os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), number)
        sys.argv = ["sdft", *words]
        runpy.run_module("sdft_cli", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def watch(pid: int, out: Path, moment: Moment | None, began: float) -> int:
    """The exit code of the child ``pid``, killed if it lives to see its moment. Nobody else reaps it, so the number
    that is killed is the child's."""
    sight = moment.sight if moment else None
    before, since = (seen(out, sight), None) if sight else (set(), began)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if sight and since is None and seen(out, sight) - before:
            since = time.monotonic()
        if moment and since is not None and time.monotonic() >= since + moment.wait:
            os.kill(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.0005)


def seen(out: Path, pattern: str) -> set[tuple[str, int, int]]:
    """What matches ``pattern`` in ``out``, told apart from what had the same name before."""
    matches = set()
    for path in out.glob(pattern):
        try:
            stat = path.stat()
        except FileNotFoundError:  # it has been renamed since
            continue
        matches.add((path.name, stat.st_ino, stat.st_mtime_ns))
    return matches


class Nursery:
    """The other side of `serve`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # a script's own has not our cwd
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, words: list[str], out: Path, moment: Moment | None = None) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        request = {"words": words, "out": str(out), "moment": asdict(moment) if moment else None}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # a test gave up waiting for a run
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    started = Nursery()
    yield started
    started.close()


# --- the ordeal ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of run and its settings."""

    method: str
    tasks: tuple[str, ...]
    sets: tuple[str, ...]

    @property
    def steps(self) -> int:
        return next(int(text.removeprefix("max_steps=")) for text in self.sets if text.startswith("max_steps="))


BOTH = ("micro-tooluse", "micro-science")
COMMON = ("checkpoint_every=2", "eval_every=4", "eval_limit=2", "evaluation.limit=2", "lr=1e-3", "threads=1")
SHORT = (*COMMON, "max_steps=6", "batch=4", "sampler.max_new_tokens=6", "evaluation.max_new_tokens=4")
KINDS = {
    "sdft-ema": Kind("sdft", BOTH, (*SHORT, "teacher.update_rate=0.1")),
    "lora-ema": Kind(
        "sdft", BOTH, (*SHORT, "teacher.update_rate=0.1", "lora.rank=4", "lora.dropout=0.1", "prefetch=2")
    ),
    # the embedded model, because an untrained one is never rewarded; at no checkpoint its teacher is the student
    "rlsd": Kind("rlsd", BOTH[1:], (*COMMON, "max_steps=8", "batch=8", "sampler.n=4", "teacher.update_every=5")),
}


@pytest.fixture(scope="module")
def few_rows(micro_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro tasks with few train rows: every start of a run reads them all."""
    folder = tmp_path_factory.mktemp("few") / "data"
    shutil.copytree(micro_data, folder)
    for file in folder.glob("*/train.jsonl"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:48]))
    return folder


class Ordeal:
    """Runs of one kind in ``folder``, killed and resumed until each is done, and compared with one that was left
    alone."""

    def __init__(self, nursery: Nursery, kind: Kind, model: Path, data: Path, folder: Path):
        self.nursery, self.kind, self.folder = nursery, kind, folder
        words = ["train", "--method", kind.method, "--tasks", ",".join(kind.tasks), "--model", str(model)]
        self.words = [*words, "--data", str(data), *(word for text in kind.sets for word in ("--set", text))]
        self.whole, self.out, self.runs = folder / "whole", folder / "run-1", 1
        self.story: list[str] = [f"seed {SEED}"]
        self.half = self.kills = 0
        self.shortest = self.go(self.whole, None)["seconds"]

    def go(self, out: Path, moment: Moment | None) -> dict[str, Any]:
        """Start or resume the run in ``out``; it must end well or be killed."""
        more = ["--resume"] if (out / "recipe.json").is_file() else []
        if not more:  # not started yet, or killed before it was a run
            shutil.rmtree(out, ignore_errors=True)
        outcome = self.nursery.ask([*self.words, "--out", str(out), *more], out, moment)
        left = (out / "latest").read_text().strip() if (out / "latest").is_file() else "no checkpoint"
        self.story.append(f"{out.name} {moment}: {outcome}, {left}")
        expected = (0, -signal.SIGKILL) if moment else (0,)
        assert outcome["code"] in expected, f"{self}\n{out.with_suffix('.log').read_text()[-3000:]}"
        return outcome

    def kill(self, wait: float = 0.0, sight: str | None = None, share: float = 0.0) -> None:
        """One kill: ``share`` of a whole run's time after the start, or at a sight. A run that ends before is compared,
        and the next one meets its moment."""
        while True:
            fresh = not self.out.exists()
            outcome = self.go(self.out, Moment(wait + share * self.shortest, sight))
            if outcome["code"]:
                break
            if fresh:
                self.shortest = min(self.shortest, outcome["seconds"])
            self.compare()
        self.kills += 1
        self.half += bool(outcome["half"])

    def finish(self) -> None:
        self.go(self.out, None)
        self.compare()

    def compare(self) -> None:
        """The run that has ended equals the one that was left alone; the next one begins in a new folder."""
        assert_same(self.out, self.whole, self.kind.tasks, self)
        self.runs += 1
        self.out = self.folder / f"run-{self.runs}"

    def __str__(self) -> str:
        return "\n".join(self.story)


#: One kind in every run; test_signals, and SIGKILL in a second stage in test_train, take others.
EVERY_RUN = "sdft-ema"


@pytest.fixture(params=[pytest.param(k, marks=() if k == EVERY_RUN else pytest.mark.slow) for k in KINDS])
def ordeal(
    request: pytest.FixtureRequest, nursery: Nursery, tiny_model: Path, few_rows: Path, tmp_path: Path
) -> Ordeal:
    kind = KINDS[request.param]
    model = Path("micro") if kind.method == "rlsd" else tiny_model
    return Ordeal(nursery, kind, model, few_rows, tmp_path)


@pytest.mark.timeout(600)
def test_a_killed_run_ends_as_the_uninterrupted_one(ordeal: Ordeal, tiny_model: Path) -> None:
    rng = random.Random(f"{SEED} {ordeal.kind}")
    assert_trained(ordeal, tiny_model)
    ordeal.kill(sight=WRITING)  # the first checkpoint of all
    for _ in range(3):  # mostly the same write each time: by the third, a replaced checkpoint is in the way as well
        ordeal.kill(sight=RENAMED)  # that is, before `latest` knows of it
    for step in (4, ordeal.kind.steps):  # as before, but it goes on from a checkpoint, and comes to the end of a stage
        ordeal.kill(sight=f"stages/01-*/step-{step:06d}")
    for _ in range(RANDOM):
        ordeal.kill(share=rng.uniform(0, 0.7))
    for _ in range(KILLS):
        if ordeal.kills < KILLS or ordeal.half < HALF_WRITTEN:
            ordeal.kill(sight=WRITING, wait=rng.choice((0, 0.002, 0.01)))
    ordeal.finish()
    assert any("resumed at stage" in log.read_text() for log in ordeal.folder.glob("*.log")), str(ordeal)
    assert ordeal.kills >= KILLS and ordeal.half >= HALF_WRITTEN, str(ordeal)
    print(ordeal)


def assert_trained(ordeal: Ordeal, tiny_model: Path) -> None:
    """The uninterrupted run has moved its weights: otherwise there is nothing to compare."""
    from safetensors.torch import load_file

    from sdft_cli.config.model_locations import locate

    kind = ordeal.kind
    final = weights(ordeal.whole, len(kind.tasks), kind.tasks[-1])
    if any("lora" in text for text in kind.sets):
        assert any("lora_B" in name and tensor.any() for name, tensor in final.items())  # B starts at 0
        return
    (file,) = Path(locate("micro") if kind.method == "rlsd" else tiny_model).glob("*.safetensors")
    first = load_file(file)
    assert any(not tensor.equal(first[name]) for name, tensor in final.items())


if __name__ == "__main__":
    serve()
