"""The training log: what is said on the terminal and what is recorded."""

import io
import json
from pathlib import Path

from rich.console import Console

from sdft_cli import plugins
from sdft_cli.runs.metrics import MetricsLog
from sdft_cli.runs.records import ModelFacts, Position, StageId
from sdft_cli.training.display import TrainingDisplay
from sdft_cli.training.log import TrainingLog
from sdft_cli.training.preflight import StagePlan


def test_how_a_model_is_sampled_and_scored_is_said_once_and_recorded_where_it_changes(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    fast = ModelFacts(sampling="transformers, fast layers", scoring="packed rows, attention sdpa")
    slow = ModelFacts(sampling="transformers, left-padded batches", scoring="padded rows, attention eager")

    def process(*told: tuple[StageId, int, ModelFacts]) -> list[str]:
        """One process that logs these; what it says."""
        out = io.StringIO()
        plans = [StagePlan(plugins.TASKS.get("micro-tooluse"), [], [], {}, max_new_tokens=8) for _ in range(2)]
        log = TrainingLog(metrics, plans, TrainingDisplay(console=Console(file=out, width=80)))
        for stage, step, facts in told:
            log.model(Position(stage, 0, step), facts)
        return out.getvalue().splitlines()

    one, two = StageId(1, "a"), StageId(2, "b")
    said = ["sampling: transformers, fast layers", "scoring: packed rows, attention sdpa"]
    assert process((one, 0, fast), (two, 0, fast)) == said
    assert process((two, 3, fast)) == said  # resumed: said again, nothing new to record
    assert len(process((two, 5, slow), (two, 7, slow))) == 2
    rows = [json.loads(line) for line in metrics.path.read_text().splitlines()]
    assert [(row["kind"], row["stage"], row["step"]) for row in rows] == [("model", 1, 0), ("model", 2, 5)]
    assert rows[0]["scoring"] == fast["scoring"] and rows[1]["sampling"] == slow["sampling"]
    assert metrics.model() == slow and metrics.read().steps == []
    metrics.rewind(two, 4)
    assert metrics.model() == fast
