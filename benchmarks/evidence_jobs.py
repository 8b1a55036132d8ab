"""The runs of `evidence`: groups of jobs, each by one rule."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

TASKS = ("desk-triage", "desk-orders", "desk-handbook")
RATES = {"sft": ("2e-5", "3e-5", "5e-5"), "sdft": ("2e-5", "5e-5", "1e-4")}
#: For the demo's 40 steps of 8 rows.
DEMO_RATES = {"sft": ("3e-5", "5e-5"), "sdft": ("5e-5", "1e-4")}
#: What the demo's SDFT is set to besides its rate and temperature; after a stage, this model can no longer be shown how
#: to answer, so the teacher is the base model.
BASE = ("teacher.start=base", "teacher.update_rate=0")
SDFT = ("views.teacher=demonstration-verbatim", "skip_first=0", *BASE)
#: On desk-triage: a method and its settings; temperatures are 0.5 unless they are given.
ONE = {
    "sdft-1": ("sdft", ("lr=5e-5", "sampler.temperature=1", "logits_temperature=1")),
    "sdft-0.7": ("sdft", ("lr=5e-5", "sampler.temperature=0.7", "logits_temperature=0.7")),
    "sdft-0.5": ("sdft", ("lr=5e-5", "sampler.temperature=0.5", "logits_temperature=0.5")),
    "sdft-0.3": ("sdft", ("lr=5e-5", "sampler.temperature=0.3", "logits_temperature=0.3")),
    "sdft-plain": ("sdft", ("lr=5e-5", "views.teacher=demonstration-plain")),
    "sdft-fast": ("sdft", ("lr=1e-4",)),
    "sdft-long": ("sdft", ("lr=2e-5", "max_steps=144", "eval_every=72")),
    "sdft-reverse": ("sdft", ("lr=5e-5", "divergence=reverse_kl")),
    "lora-slow": ("sdft", ("lr=5e-4", "rank=32")),
    "lora": ("sdft", ("lr=1e-3", "rank=32")),
    "offline-slow": ("offline-distill", ("lr=2e-5",)),
    "offline": ("offline-distill", ("lr=5e-5",)),
    "sft-from-teacher": ("sft-from-teacher", ("lr=2e-5",)),
}
VIEWS = ("demonstration", "demonstration-official", "demonstration-plain", "demonstration-turn", "answer")
#: Three tasks in a row: the view, and the teacher's settings; those of the second are the paper's.
IN_A_ROW = {
    "plain-base": ("demonstration-plain", BASE),
    "plain-average": ("demonstration-plain", ()),
    "turn-base": ("demonstration-turn", BASE),
}
ORDER = "seq0,probe,one0,seq1,seq2,demo0,row0,view0,demo1,old"


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
        self.size = self._sized(given.batch, given.steps)
        self.heat = self._heat(given.temperature)

    @staticmethod
    def _sized(batch: int, steps: int) -> list[str]:
        return [f"batch={batch}", f"max_steps={steps}", f"eval_every={max(1, steps // 2)}", "eval_limit=64"]

    @staticmethod
    def _heat(temperature: float) -> list[str]:
        return [f"sampler.temperature={temperature:g}", f"logits_temperature={temperature:g}"]

    def jobs(self) -> list[Job]:
        """In the order of ``--order``."""
        groups: dict[str, Callable[[int], Iterator[Job]]] = {
            "seq": self.seq,
            "demo": self.demo,
            "one": self.one,
            "view": self.view,
            "row": self.row,
            "probe": self.probe,
            "old": self.old,
        }
        found: list[Job] = []
        for what in self.given.order.split(","):
            name = what.rstrip("0123456789")
            found += groups[name](int(what[len(name) :] or 0))
        return found

    def seq(self, seed: int) -> Iterator[Job]:
        yield from self._both("seq", RATES, self.size, seed, prior=True)

    def demo(self, seed: int) -> Iterator[Job]:
        yield from self._both("demo", DEMO_RATES, self._sized(8, 40), seed, prior=False)

    def _both(
        self, name: str, rates: dict[str, tuple[str, ...]], size: list[str], seed: int, prior: bool
    ) -> Iterator[Job]:
        for method, sets in (("sdft", [*SDFT, *self.heat]), ("sft", [])):
            for lr in rates[method]:
                yield self._job(f"{name}-{method}-{lr}-s{seed}", method, TASKS, [*size, *sets, f"lr={lr}"], seed, prior)

    def one(self, seed: int) -> Iterator[Job]:
        for name, (method, settings) in ONE.items():
            sets = list(SDFT if method == "sdft" else SDFT[:1])
            sets += self._heat(0.5) if method != "sft-from-teacher" else self._heat(0.5)[:1]
            yield self._job(f"one-{name}-s{seed}", method, TASKS[:1], [*self.size, *sets, *settings], seed)

    def view(self, seed: int) -> Iterator[Job]:
        for view in VIEWS:
            sets = [*self.size, *SDFT, *self.heat, "lr=5e-5", f"views.teacher={view}"]
            yield self._job(f"view-{view}-s{seed}", "sdft", TASKS[:1], sets, seed)

    def row(self, seed: int) -> Iterator[Job]:
        for name, (view, teacher) in IN_A_ROW.items():
            sets = [*self.size, *self._heat(0.5), f"views.teacher={view}", "skip_first=0", *teacher, "lr=1e-4"]
            yield self._job(f"row-{name}-s{seed}", "sdft", TASKS, sets, seed)

    def probe(self, _: int) -> Iterator[Job]:
        for task in TASKS:
            recipe, limit = self.out / f"advised-{task}.toml", "2" if self.given.quick else "48"
            probe = ["probe", "--tasks", task, *self.common, "--limit", limit, "--write-recipe", str(recipe)]
            often, seeds = ["eval_every=20", "eval_limit=64"], range(self.given.seeds)
            runs = [self._train(f"probe-{task}-s{seed}", None, (task,), often, seed, recipe) for seed in seeds]
            yield Job(f"probe-{task}", [probe, *runs])

    def old(self, _: int) -> Iterator[Job]:
        for task in TASKS:
            sets = [*self.size, "lr=1e-4", "views.teacher=demonstration", "skip_first=3"]
            yield self._job(f"old-{task}-s0", "sdft", (task,), sets, 0)

    def _job(
        self, name: str, method: str, tasks: tuple[str, ...], sets: list[str], seed: int, prior: bool = False
    ) -> Job:
        train = self._train(name, method, tasks, [*sets, "guards.enabled=false"], seed)
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
