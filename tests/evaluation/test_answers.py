"""Several samples of a task's questions: what is drawn does not depend on how they are cut into blocks."""

from pathlib import Path

import pytest
from support import sums_task as sums
from support.row_engine import OlderRowEngine, RowEngine

from sdft_cli.config.recipe import Runtime
from sdft_cli.engines.scripted import ScriptedEngine
from sdft_cli.evaluation.answers import draw
from sdft_cli.evaluation.conditions import PASS_AT, Conditions
from sdft_cli.models import pretrained


def drawn(engine: ScriptedEngine, *blocks: range) -> dict[tuple[str, int], str]:
    rows, conditions = [sums.row(i) for i in range(5)], Conditions("prompt", max_new_tokens=4, sampler=PASS_AT)
    records = [r for block in blocks for r in draw(engine, engine.policy.chat, sums.TASK, rows, conditions, block)]
    return {(record["id"], record["sample"]): record["completion"] for record in records}


@pytest.mark.parametrize("kind", [RowEngine, OlderRowEngine])
def test_samples_do_not_depend_on_the_blocks_they_are_drawn_in(kind: type[ScriptedEngine], tiny_model: Path) -> None:
    engine = kind(pretrained.load(str(tiny_model), Runtime()))
    whole, parts = drawn(engine, range(12)), drawn(engine, range(8), range(8, 10), range(10, 12))
    for samples in (whole, parts):
        assert sorted(samples) == sorted((f"sums-{i}", number) for i in range(5) for number in range(12))
        assert len(set(samples.values())) == 60  # none is another's
    assert (whole == parts) == (kind is RowEngine)
