"""The EleutherAI harness as a library: suites whose prompts, log-likelihoods and scoring are its own.

Two suites are made of it: ``prior``, the six benchmarks of the SDFT paper under its settings (0-shot, no chat template,
the plain mean), and ``harness``, any of its tasks and groups by name. Each part is an evaluation of its own, so its
number does not depend on what else is measured, and is kept when it is done. It is the number that the harness's
command line prints for that task with the same files, settings and batch size; its log becomes the item records.

Not used: its caches, its uploads, several processes.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sdft_cli.config.recipe import Evaluation, Harness
from sdft_cli.errors import UsageError, choose
from sdft_cli.harness import benchmarks, ifeval, items, side_effects, tasks
from sdft_cli.harness.tasks import HarnessTask
from sdft_cli.runs.records import ItemRecord, PartFacts, UnitSettings
from sdft_cli.sandbox import programs
from sdft_cli.types import Battery, Json

if TYPE_CHECKING:
    from sdft_cli.harness.model import LanguageModel
    from sdft_cli.models.engine import Engine

#: Arguments of the harness that are ours to set, or make no sense here.
_OURS = (
    *("self", "pretrained", "tokenizer", "device", "batch_size", "model", "model_args", "tasks", "task_manager"),
    *("num_fewshot", "limit", "samples", "apply_chat_template", "log_samples", "evaluation_tracker", "verbosity"),
    *("confirm_run_unsafe_code", "predict_only", "check_integrity", "write_out", "kwargs"),
)
_NO_CODE = "HumanEval is left out, because it runs code that the model writes; --allow-code-execution includes it"


@dataclass(frozen=True)
class HarnessSuite(Battery[Evaluation]):
    """``fixed`` parts, or else those that the settings name; ``num_fewshot`` applies unless the settings set it."""

    name: str
    summary: str
    fixed: tuple[HarnessTask, ...] = ()
    num_fewshot: int | None = None

    def parts(self, settings: Evaluation) -> list[str]:
        return [part.name for part in self._tasks(settings.harness)]

    def note(self, settings: Evaluation) -> str:
        parts, code = self._tasks(settings.harness), settings.harness.allow_code_execution
        return "" if code or not self.fixed else f"{_NO_CODE}. The mean is over {len(parts)}."

    def settings(self, settings: Evaluation, part: str | None = None) -> UnitSettings:
        """See `Battery.settings`. Local files count by their content, the hub's data sets only by their names."""
        harness = settings.harness
        parts = [p for p in self._tasks(harness) if part in (None, p.name)]
        local = [part.name for part in parts if part.benchmark] if harness.benchmarks else []
        if any(part.runs_code for part in parts):
            programs.ready()  # better now than after hours
        return {
            "harness": _version(),
            "tasks": [f"{part.name}:{part.metric}" if part.metric else part.name for part in parts],
            "shots": self._shots(harness),
            "chat_template": harness.apply_chat_template,
            "limit": settings.limit,
            "batch_size": harness.batch_size,
            "harness_args": harness.args,
            "data": benchmarks.digests(str(harness.benchmarks), local) or "hub",
            "sentences": _prepare_ifeval(parts, harness),
        }

    def measure(self, engine: Engine, settings: Evaluation, part: str) -> tuple[list[dict[str, Json]], dict[str, Json]]:
        """See `Battery.measure`. ``engine`` holds the policy, and writes completions unless it is ``transformers``."""
        _version()
        [task] = [p for p in self._tasks(settings.harness) if p.name == part]
        _prepare_ifeval([task], settings.harness)
        with (
            side_effects.undisturbed(engine.policy.device),
            tempfile.TemporaryDirectory(prefix="sdft-harness-") as scratch,
        ):
            records, reported = HarnessRun(task, settings, self._shots(settings.harness), Path(scratch)).measured(
                engine
            )
        return [dict(record) for record in records], dict(reported)

    def _shots(self, harness: Harness) -> int | None:
        return self.num_fewshot if harness.num_fewshot is None else harness.num_fewshot

    def _tasks(self, harness: Harness) -> list[HarnessTask]:
        if self.fixed:
            return [part for part in self.fixed if harness.allow_code_execution or not part.runs_code]
        parts = [tasks.parse(text) for text in harness.tasks]
        names = [part.name for part in parts]
        if not parts:
            raise UsageError(f"the suite {self.name!r} has no task", "name some: --harness gsm8k,arc_easy")
        if len(set(names)) < len(names):
            raise UsageError(f"{max(names, key=names.count)} is named twice", "name one metric for each task")
        if any(part.runs_code for part in parts) and not harness.allow_code_execution:
            raise UsageError("humaneval runs code that the model writes", "add --allow-code-execution")
        return parts


@dataclass(frozen=True)
class HarnessRun:
    """One evaluation by the harness: a part under its settings, with a folder for our task files."""

    part: HarnessTask
    settings: Evaluation
    shots: int | None
    scratch: Path

    def measured(self, engine: Engine) -> tuple[list[ItemRecord], PartFacts]:
        """Records, and what the summary holds besides; also writes the harness's own files if they are asked for."""
        harness = self.settings.harness
        results, model = self._results(engine)
        of_part = results["results"][self.part.task]
        key = items.metric_of(of_part, self.part.metric)
        records = items.records(self.part.name, results["samples"], key, lambda text: len(model.tok_encode(text)))
        reported = items.part_facts(records, of_part, key)
        notes = [reported.get("note"), tasks.remark(self.part, harness.benchmarks)]
        if harness.log:
            self._log(results, engine.policy.name)
        return records, {**reported, "note": "; ".join(filter(None, notes))}

    def _results(self, engine: Engine) -> tuple[dict[str, Json], LanguageModel]:
        from lm_eval import simple_evaluate

        from sdft_cli.harness.model import LanguageModel

        harness, (for_model, for_evaluation) = self.settings.harness, self._arguments()
        loaded = tasks.load(self.part, harness.benchmarks, self.scratch)
        model = LanguageModel(engine, harness.batch_size, for_model)
        model.check(loaded.leaves, for_evaluation.get("gen_kwargs") or {})
        side_effects.seed(for_evaluation.pop("random_seed", 0))
        results = simple_evaluate(
            random_seed=None,
            model=model,
            tasks=[loaded.task],
            task_manager=loaded.manager,
            num_fewshot=self.shots,
            batch_size=harness.batch_size,
            limit=self.settings.limit,
            apply_chat_template=harness.apply_chat_template,
            confirm_run_unsafe_code=self.part.runs_code,
            **{"fewshot_as_multiturn": bool(harness.apply_chat_template), **for_evaluation},
        )
        return results, model

    def _arguments(self) -> tuple[dict[str, Json], dict[str, Json]]:
        """``harness.args``, divided into what the harness's model takes and what its evaluation takes."""
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        for_model, for_evaluation = _parameters(HFLM.__init__), _parameters(simple_evaluate)
        given = self.settings.harness.args
        if unknown := [name for name in given if name not in {*for_model, *for_evaluation}]:
            raise choose("argument of the harness", unknown[0], [*Harness.model_fields, *for_model, *for_evaluation])
        model = {name: value for name, value in given.items() if name in for_model}
        return model, {name: value for name, value in given.items() if name not in for_model}

    def _log(self, results: dict[str, Json], model: str) -> None:
        """The result files that the harness's command line writes, by its own code."""
        from lm_eval.loggers import EvaluationTracker

        harness = self.settings.harness
        tracker, multiturn = EvaluationTracker(output_path=harness.log), bool(harness.apply_chat_template)
        system = harness.args.get("system_instruction")
        tracker.general_config_tracker.log_experiment_args("hf", {"pretrained": model}, system, None, multiturn)
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for task, rows in samples.items():
            tracker.save_results_samples(task_name=task, samples=rows)


def _parameters(function: Callable[..., object]) -> list[str]:
    wrapped = inspect.unwrap(function)
    return [name for name in inspect.signature(wrapped).parameters if name not in _OURS]


def _version() -> str:
    """The harness's version; `UsageError` if it, or what these suites need besides, is not installed."""
    missing = [name for name in ("lm_eval", "accelerate", "nltk", "langdetect") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the suites 'prior' and 'harness' need the EleutherAI harness, and {missing[0]} is not installed",
            "pip install 'sdft-cli[eval]'",
        )
    return metadata.version("lm_eval")


def _prepare_ifeval(parts: Sequence[HarnessTask], harness: Harness) -> str | None:
    """Prepare IFEval's checks if one of ``parts`` needs them; the name of the sentence splitter."""
    if not any("ifeval" in part.task for part in parts):
        return None
    return ifeval.prepare(offline=bool(harness.benchmarks))
