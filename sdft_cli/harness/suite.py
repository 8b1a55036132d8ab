"""The EleutherAI harness as a library: suites whose prompts, log-likelihoods and scoring are its own.

Two suites come of it: ``prior``, the six benchmarks of the SDFT paper under its settings (0-shot, no chat template, the
plain mean), and ``harness``, any of its tasks and groups by name. Each part is an evaluation of its own, so its number
does not depend on what else is asked for, and is kept when it is done. It is the number that the harness's command line
prints for that task with the same files, settings and batch size; what it logs is in the items.

Left out: its caches, its uploads, several processes.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sdft_cli.config.recipe import Evaluation, Harness
from sdft_cli.errors import UsageError, choose
from sdft_cli.harness import benchmarks, ifeval, items, sandbox, tasks
from sdft_cli.harness.tasks import Wanted
from sdft_cli.types import Battery

Row = dict[str, Any]
#: Arguments of the harness that are ours to set, or make no sense here.
_OURS = (
    *("self", "pretrained", "tokenizer", "device", "batch_size", "model", "model_args", "tasks", "task_manager"),
    *("num_fewshot", "limit", "samples", "apply_chat_template", "log_samples", "evaluation_tracker", "verbosity"),
    *("confirm_run_unsafe_code", "predict_only", "check_integrity", "write_out", "kwargs"),
)
_NO_CODE = "HumanEval is left out, for it runs code that the model wrote; --allow-code-execution adds it"


@dataclass(frozen=True)
class HarnessSuite(Battery[Evaluation]):
    """``fixed`` parts, or else those that the settings name; ``num_fewshot`` where the settings say nothing."""

    name: str
    summary: str
    fixed: tuple[Wanted, ...] = ()
    num_fewshot: int | None = None

    def parts(self, settings: Evaluation) -> list[str]:
        return [part.name for part in self._wanted(settings.harness)]

    def note(self, settings: Evaluation) -> str:
        parts, code = self._wanted(settings.harness), settings.harness.allow_code_execution
        return "" if code or not self.fixed else f"{_NO_CODE}. The mean is of {len(parts)}."

    def settings(self, settings: Evaluation, part: str | None = None) -> Row:
        """See `Battery.settings`. Local files count by what is in them, the hub's data sets by their names alone."""
        asked = settings.harness
        parts = [p for p in self._wanted(asked) if part in (None, p.name)]
        local = [part.name for part in parts if part.benchmark] if asked.benchmarks else []
        if any(part.runs_code for part in parts):
            sandbox.ready()  # rather now than after hours
        return {
            "harness": _version(),
            "tasks": [f"{part.name}:{part.metric}" if part.metric else part.name for part in parts],
            "shots": self._shots(asked),
            "chat_template": asked.apply_chat_template,
            "limit": settings.limit,
            "batch_size": asked.batch_size,
            "harness_args": asked.args,
            "data": benchmarks.digests(str(asked.benchmarks), local) or "hub",
            "sentences": _sentences(parts, asked),
        }

    def measure(self, engine: Any, settings: Evaluation, part: str) -> tuple[list[Row], Row]:
        """See `Battery.measure`. ``engine`` has the policy, and samples where it is another than ``transformers``."""
        _version()
        [asked] = [p for p in self._wanted(settings.harness) if p.name == part]
        _sentences([asked], settings.harness)
        with _undisturbed(engine.policy.device), tempfile.TemporaryDirectory(prefix="sdft-harness-") as scratch:
            call = _Call(asked, settings, self._shots(settings.harness), Path(scratch))
            return call.measured(engine)

    def _shots(self, asked: Harness) -> int | None:
        return self.num_fewshot if asked.num_fewshot is None else asked.num_fewshot

    def _wanted(self, asked: Harness) -> list[Wanted]:
        if self.fixed:
            return [part for part in self.fixed if asked.allow_code_execution or not part.runs_code]
        found = [tasks.wanted(text) for text in asked.tasks]
        names = [part.name for part in found]
        if not found:
            raise UsageError(f"the suite {self.name!r} has no task", "name some: --harness gsm8k,arc_easy")
        if len(set(names)) < len(names):
            raise UsageError(f"{max(names, key=names.count)} is named twice", "ask for one metric of each task")
        if any(part.runs_code for part in found) and not asked.allow_code_execution:
            raise UsageError("humaneval runs code that the model wrote", "add --allow-code-execution")
        return found


@dataclass(frozen=True)
class _Call:
    """One evaluation by the harness: a part under its settings, with a folder for files of ours."""

    part: Wanted
    settings: Evaluation
    shots: int | None
    scratch: Path

    def measured(self, engine: Any) -> tuple[list[Row], Row]:
        """Records and facts; the harness's own files are written where they are asked for."""
        asked = self.settings.harness
        results, model = self._results(engine)
        own = results["results"][self.part.task]
        key = items.metric_of(own, self.part.metric)
        found = items.records(self.part.name, results["samples"], key, lambda text: len(model.tok_encode(text)))
        facts = items.facts(found, own, key)
        notes = [facts.get("note"), tasks.remark(self.part, asked.benchmarks)]
        if asked.log:
            self._log(results, engine.policy.name, asked)
        return found, facts | {"note": "; ".join(filter(None, notes))}

    def _results(self, engine: Any) -> tuple[Row, Any]:
        from lm_eval import simple_evaluate

        from sdft_cli.harness.model import LanguageModel

        asked, (for_model, more) = self.settings.harness, self._arguments()
        manager, found = tasks.load(self.part, asked.benchmarks, self.scratch)
        model = LanguageModel(engine, asked.batch_size, for_model)
        model.check(tasks.leaves(found), more.get("gen_kwargs") or {})
        _seed(more.pop("random_seed", 0))
        results = simple_evaluate(
            random_seed=None,
            model=model,
            tasks=[found],
            task_manager=manager,
            num_fewshot=self.shots,
            batch_size=asked.batch_size,
            limit=self.settings.limit,
            apply_chat_template=asked.apply_chat_template,
            confirm_run_unsafe_code=self.part.runs_code,
            **{"fewshot_as_multiturn": bool(asked.apply_chat_template), **more},
        )
        return results, model

    def _arguments(self) -> tuple[Row, Row]:
        """``harness.args``, divided into what the harness's model takes and what its evaluation takes."""
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        for_model, for_evaluation = _parameters(HFLM.__init__), _parameters(simple_evaluate)
        given = self.settings.harness.args
        if unknown := [name for name in given if name not in {*for_model, *for_evaluation}]:
            raise choose("argument of the harness", unknown[0], [*Harness.model_fields, *for_model, *for_evaluation])
        model = {name: value for name, value in given.items() if name in for_model}
        return model, {name: value for name, value in given.items() if name not in for_model}

    def _log(self, results: Row, model: str, asked: Harness) -> None:
        """The result files that the harness's command line writes, by its own code."""
        from lm_eval.loggers import EvaluationTracker

        tracker, multiturn = EvaluationTracker(output_path=asked.log), bool(asked.apply_chat_template)
        system = asked.args.get("system_instruction")
        tracker.general_config_tracker.log_experiment_args("hf", {"pretrained": model}, system, None, multiturn)
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for task, rows in samples.items():
            tracker.save_results_samples(task_name=task, samples=rows)


def _seed(seed: int) -> None:
    """Python's generator as it is when the harness's command line scores a task: seeded, and drawn from once by an
    import of its own. Two of IFEval's instructions name a letter that cannot be counted, and it draws others."""
    random.seed(seed)
    random.getrandbits(24)


def _parameters(function: Callable[..., Any]) -> list[str]:
    wrapped = inspect.unwrap(function)
    return [name for name in inspect.signature(wrapped).parameters if name not in _OURS]


def _version() -> str:
    """The harness's version; `UsageError` where it, or what it needs for these suites, is not installed."""
    missing = [name for name in ("lm_eval", "accelerate", "nltk", "langdetect") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the suites 'prior' and 'harness' need the EleutherAI harness, and {missing[0]} is not installed",
            "pip install 'sdft-cli[eval]'",
        )
    return metadata.version("lm_eval")


def _sentences(parts: Sequence[Wanted], asked: Harness) -> str | None:
    """Get IFEval's checks ready where one of ``parts`` needs them; the name of the sentence splitter."""
    if not any("ifeval" in part.task for part in parts):
        return None
    return ifeval.prepare(offline=bool(asked.benchmarks))


@contextlib.contextmanager
def _undisturbed(device: Any) -> Iterator[None]:
    """The harness seeds every generator there is and talks on stdout; afterwards all is as it was.

    Left out are its bar for the making of requests (MMLU has 57 tasks), and what it notes of the machine with every
    evaluation, for which it starts git and a dozen other programs.
    """
    import datasets
    import numpy as np
    import torch
    from lm_eval import evaluator
    from lm_eval.api import task

    states, level = (random.getstate(), np.random.get_state()), logging.getLogger("lm_eval").level
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            contextlib.redirect_stdout(sys.stderr),
            _replaced(task, tqdm=lambda rows, **_: rows),
            _replaced(evaluator, add_env_info=lambda results: None, get_git_commit_hash=lambda: None),
        ):
            yield
    finally:
        datasets.enable_progress_bars()
        logging.getLogger("lm_eval").setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextlib.contextmanager
def _replaced(module: Any, **others: Any) -> Iterator[None]:
    own = {name: getattr(module, name) for name in others}
    for name, other in others.items():
        setattr(module, name, other)
    try:
        yield
    finally:
        for name, value in own.items():
            setattr(module, name, value)
