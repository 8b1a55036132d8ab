"""The target of an evaluation: a run, at its last stage, or any model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdft_cli import console, plugins
from sdft_cli.config.adapter_settings import base_bits
from sdft_cli.config.model_locations import locate
from sdft_cli.config.recipe import Recipe, build
from sdft_cli.runs.folder import RUNS, Run, newest
from sdft_cli.runs.records import StageId

BASE = StageId(0, "base")


@dataclass(frozen=True)
class Target:
    """``location`` is the folder or hub id of the weights, None where a run's have been deleted; ``stage`` the last one
    of the run that was trained or evaluated."""

    name: str
    location: str | None
    run: Run | None = None
    stage: StageId = BASE

    @classmethod
    def named(cls, text: str | None) -> Target:
        """What ``text`` names; by default the newest run, or the embedded model if there is no run.

        A run's plug-ins are loaded here, so that the names they define are known from now on."""
        if text is None and any(RUNS.glob("*/recipe.json")):
            text = str(newest())
            console.err.print(f"no run or model named: using the newest run, {text}")
        if text is None:
            console.err.print(f"no run or model named, and no run in {RUNS}/: using the embedded micro model")
            text = "micro"
        return cls.of_run(Run.open(Path(text))) if (Path(text) / "recipe.json").is_file() else cls(text, text)

    @classmethod
    def of_run(cls, run: Run) -> Target:
        recipe = run.recipe
        for file in filter(Path.is_file, map(Path, recipe.plugins)):  # reading what the run holds needs none of them
            plugins.load_file(file)
        for stage in reversed(run.stages()):
            checkpoint = run.checkpoints.of(stage).finished()
            if checkpoint or run.evaluation(stage).scores():
                location = str(checkpoint.model) if checkpoint else None
                return cls(str(run.folder), location, run, stage)
        return cls(str(run.folder), recipe.model, run)

    @property
    def recipe(self) -> Recipe:
        """The run's, as its stage was trained, or the defaults with the model's name, and with the bits in which an
        adapter's base was held in training."""
        if self.run is None:
            return build([{"model": self.name, "lora": {"bits": base_bits(locate(self.name))}}], self.name)
        return self.run.recipe_of(self.stage) if self.stage.number else self.run.recipe
