"""Signals that stop a command: a training run is saved after its step, and resumed, it equals one that was left alone.

The signals are real and are sent to this process, which takes them as the command does. SIGKILL is in `test_kill`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.same_runs import assert_same

from sdft_cli.commands.train import train
from sdft_cli.config.recipe import Recipe
from sdft_cli.config.recipe_layers import assemble
from sdft_cli.evaluation.stage_evaluator import StageEvaluator
from sdft_cli.runs import signals
from sdft_cli.runs.folder import Run
from sdft_cli.runs.records import StepRow
from sdft_cli.runs.signals import Stopped
from sdft_cli.training.batches import Batches
from sdft_cli.training.display import TrainingDisplay

TASKS = ("micro-tooluse", "micro-science")
FEW = ("eval_limit=2", "evaluation.limit=2", "threads=1", "evaluation.max_new_tokens=4", "sampler.max_new_tokens=6")
COMMON = (*FEW, "lr=1e-3", "max_steps=6", "batch=4")
OFF_POLICY = "objective.importance_cap=2"


@dataclass(frozen=True)
class Kind:
    """A kind of run, and the (stage, step) after which it is stopped, one stop after the other."""

    method: str
    sets: tuple[str, ...]
    stops: tuple[tuple[int, int], ...]
    tasks: tuple[str, ...] = TASKS[:1]
    general: bool = False


PLAIN = ("checkpoint_every=0", "eval_every=0")
KINDS = {
    # before the first checkpoint, where an evaluation is due, at a checkpoint, at the end of a stage
    "evaluated": Kind(
        "sdft",
        ("checkpoint_every=3", "eval_every=2", "teacher.update_rate=0.1"),
        ((1, 1), (1, 2), (1, 3), (1, 6), (2, 4)),
        TASKS,
    ),
    # batches that are sampled ahead
    "prefetched": Kind("sdft", (*PLAIN, "engine.prefetch=2", OFF_POLICY, "lora.rank=2"), ((1, 1), (1, 4))),
    # batches that are used for several steps
    "reused": Kind("sdft", (*PLAIN, "train.updates=3", OFF_POLICY), ((1, 1), (1, 5))),
    # at the end of the first of two phases, and in the second
    "two phases": Kind(
        "reinvoke",
        ("checkpoint_every=0", "eval_every=6", "second_phase.train.max_steps=3"),
        ((1, 6), (1, 8)),
        general=True,
    ),
}


@pytest.fixture(scope="module")
def few_rows(micro_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro tasks with few train rows: every start of a run reads them all."""
    folder = tmp_path_factory.mktemp("few") / "data"
    shutil.copytree(micro_data, folder)
    for file in folder.glob("*/train.jsonl"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:16]))
    return folder


def recipe_of(kind: Kind, model: Path, data: Path) -> Recipe:
    flags = {"method": kind.method, "model": str(model), "data": str(data), "tasks": list(kind.tasks)}
    sets = [f"general={data}/{TASKS[1]}/train.jsonl"] if kind.general else []
    return assemble(None, flags, [*COMMON, *kind.sets, *sets], [])


@dataclass
class Stopper(TrainingDisplay):
    """Sends this process a signal once the step ``after`` (stage, step) is trained and logged."""

    after: tuple[int, int] = (0, 0)
    number: int = signal.SIGTERM
    times: int = 1
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(quiet=True)

    def step(self, row: StepRow) -> None:
        if (row["stage"], row["step"]) == self.after:
            for _ in range(self.times):
                send(self.number)

    def note(self, text: str) -> None:
        self.notes.append(text)


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    before = [signal.getsignal(number) for number in signals.STOPPING]
    yield
    assert [signal.getsignal(number) for number in signals.STOPPING] == before


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_a_stopped_run_ends_as_the_uninterrupted_one(
    name: str, tiny_model: Path, few_rows: Path, tmp_path: Path
) -> None:
    kind = KINDS[name]
    recipe, whole, out = recipe_of(kind, tiny_model, few_rows), tmp_path / "whole", tmp_path / "out"
    train(recipe, whole, TrainingDisplay(quiet=True))
    for number, after in enumerate(kind.stops):
        stage, step = after
        display = Stopper(after=after)
        with pytest.raises(
            Stopped, match=rf"stopped by SIGTERM at stage {stage} \(\S+\), step {step}: state"
        ) as stopped:
            train(recipe, out, display, resume=number > 0)
        assert stopped.value.code == 143 and stopped.value.hint == f"go on with: sdft train --resume --out {out}"
        latest = Run.open(out).checkpoints.latest()
        assert latest and (latest.stage.number, latest.step, latest.stage_done) == (stage, step, False)
        assert str(latest.folder) in stopped.value.message
        assert not number or any("resumed at stage" in note for note in display.notes)
    train(recipe, out, TrainingDisplay(quiet=True), resume=True)
    assert_same(out, whole, kind.tasks, name)


@pytest.fixture
def short(tiny_model: Path, few_rows: Path) -> Recipe:
    return recipe_of(Kind("sft", ("eval_every=2", "max_steps=4"), ()), tiny_model, few_rows)


def test_a_signal_during_a_step_waits_for_its_end(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several, display = Batches.several, Stopper()

    def third(self: Batches, numbers: list[int]) -> object:
        if numbers == [2]:
            send(signal.SIGINT)
        return several(self, numbers)

    monkeypatch.setattr(Batches, "several", third)
    with pytest.raises(Stopped, match=r"stopped by SIGINT at stage 1 .*, step 3: state saved") as stopped:
        train(short, tmp_path / "out", display)
    assert stopped.value.code == 130
    assert any(note.startswith("SIGINT: ") and "Ctrl-C again" in note for note in display.notes)


def test_an_evaluation_is_cut_short_and_made_up_for(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(short, tmp_path / "whole", TrainingDisplay(quiet=True))
    quick, calls = StageEvaluator.quick, []

    def second(self: StageEvaluator, *given: object) -> object:
        calls.append(0)
        if len(calls) == 2:  # after step 2; the first is that of the untrained model
            send()
            raise AssertionError("the evaluation went on")
        return quick(self, *given)

    monkeypatch.setattr(StageEvaluator, "quick", second)
    with pytest.raises(Stopped, match="step 2: state saved"):
        train(short, tmp_path / "out", TrainingDisplay(quiet=True))
    train(short, tmp_path / "out", TrainingDisplay(quiet=True), resume=True)
    assert_same(tmp_path / "out", tmp_path / "whole", TASKS[:1])


def test_a_second_signal_does_not_wait(short: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stopped, match=r"stopped by SIGTERM: no step of .*out is trained and saved") as stopped:
        train(short, out, Stopper(after=(1, 1), times=2))
    assert stopped.value.hint.startswith("go on with: sdft train --resume")
    train(short, out, TrainingDisplay(quiet=True), resume=True)
    assert Run.open(out).done


def test_before_the_first_step_nothing_is_lost(short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(Stopped, match=r"no step of .* is trained and saved yet"):
        patch.setattr(StageEvaluator, "measure", lambda *_: send(signal.SIGUSR1))
        with signals.as_interrupts():
            train(short, out, TrainingDisplay(quiet=True))
    train(short, out, TrainingDisplay(quiet=True), resume=True)
    assert Run.open(out).done


def test_the_command_exits_as_shells_have_it(
    tiny_model: Path,
    few_rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from sdft_cli.cli import app

    several, out = Batches.several, tmp_path / "out"

    def interrupted(self: Batches, numbers: list[int]) -> object:
        send(signal.SIGUSR1)
        return several(self, numbers)

    monkeypatch.setattr(Batches, "several", interrupted)
    words = ["train", "--tasks", TASKS[0], "--model", str(tiny_model), "--data", str(few_rows), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["sdft", *words, *(word for each in COMMON for word in ("--set", each))])
    with pytest.raises(SystemExit) as end:
        app.main()
    printed = capsys.readouterr()
    assert end.value.code == 128 + signal.SIGUSR1 and printed.out == ""
    assert printed.err.splitlines()[-2:] == [
        f"stopped by SIGUSR1 at stage 1 ({TASKS[0]}), step 1: state saved in {out}/stages/01-{TASKS[0]}/step-000001",
        f"hint: go on with: sdft train --resume --out {out}",
    ]
    assert "SIGUSR1: " in printed.err and "Traceback" not in printed.err


# --- the signals themselves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", signals.NAMES)
def test_every_signal_is_an_interrupt(name: str) -> None:
    with signals.as_interrupts(), pytest.raises(KeyboardInterrupt):
        send(getattr(signal, name))
    assert name in ("SIGINT", signals.last().name)


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals.as_interrupts(), signals.held() as stop:
            send(signal.SIGHUP)
            assert stop.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_was_held_is_raised_at_the_end() -> None:
    told: list[signal.Signals] = []
    done = False
    with pytest.raises(KeyboardInterrupt), signals.held(told.append) as stop:
        send()
        done = stop.number == signal.SIGTERM
    assert done and told == [signal.SIGTERM]


def test_another_thread_leaves_the_signals_alone() -> None:
    seen: list[object] = []

    def run() -> None:
        with signals.as_interrupts(), signals.held() as stop:
            seen.append(stop.number)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [None]


def test_requests_under_way_end_as_after_ctrl_c() -> None:
    """asyncio has a handler of its own for Ctrl-C, which lets a coroutine end well."""
    ended = []

    async def request() -> None:
        send()
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with signals.as_interrupts(), pytest.raises(KeyboardInterrupt):
        asyncio.run(request())
    assert ended == [True]
