"""Which engines can be told the numbers of rows, and what the others are asked for."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.plugin_files import ENGINE

from sdft_cli import plugins
from sdft_cli.config.recipe import EngineSettings, Runtime, Sampler
from sdft_cli.models import pretrained
from sdft_cli.models.engine import ENGINES, numbered, row_seed, sample_rows, takes_rows
from sdft_cli.types import Rollout

PROMPTS = [[5, 6], [7], [7]]
OLDER = """
from sdft_cli.types import Rollout

class MyEngine:
    name = "my-engine"
    def __init__(self, policy, settings): self.asked = []
    def sample(self, prompts, sampler, max_new_tokens, seed, greedy=False, **more):
        self.asked.append((seed, greedy, more))
        return [Rollout(prompt, [1], [0.0], "stop") for prompt in prompts]
    def sync(self): return 0
    def close(self): ...

ENGINE = MyEngine
"""


@pytest.fixture(autouse=True)
def _unloaded():
    yield
    plugins.unload_all()


def from_plugin(text: str, folder: Path, model: Path):
    (folder / "my.py").write_text(text)
    plugins.load_file(folder / "my.py")
    return ENGINES.get("my-engine")(pretrained.load(str(model), Runtime()), EngineSettings())


def test_every_shipped_engine_takes_rows_also_below_a_plugins(tmp_path: Path, tiny_model: Path) -> None:
    assert all(takes_rows(ENGINES.get(name)) for name in ENGINES.names())
    assert takes_rows(from_plugin(ENGINE, tmp_path, tiny_model))


def test_an_engine_that_takes_no_rows_is_never_given_any(tmp_path: Path, tiny_model: Path) -> None:
    engine = from_plugin(OLDER, tmp_path, tiny_model)
    assert not takes_rows(engine)  # what it would do with them by another name, nobody knows
    for rows in (None, [0, 1, 2], [3, 4, 5], [3, 4, 6]):
        sample_rows(engine, PROMPTS, Sampler(), 4, 9, rows, greedy=rows is None)
    assert engine.asked == [(9, True, {}), *((row_seed(9, first), False, {}) for first in (0, 3, 3))]
    assert sample_rows(engine, [], Sampler(), 4, 9, []) == []


def test_a_rows_seed_depends_on_both() -> None:
    seeds = [row_seed(seed, row) for seed in range(20) for row in range(20)]
    assert len(set(seeds)) == 400 and all(0 <= seed < 2**63 for seed in seeds)


def test_rows_are_numbered_from_0_unless_they_have_numbers() -> None:
    assert list(numbered(PROMPTS, None)) == [0, 1, 2] and list(numbered(PROMPTS, [8, 2, 5])) == [8, 2, 5]
    assert list(numbered([], None)) == list(numbered([], [])) == []
    wrong: list[Sequence[int]] = [[1, 2], [1, 2, 2], [-1, 0, 1], range(4)]
    for rows in wrong:
        with pytest.raises(ValueError, match="3 prompts and rows"):
            numbered(PROMPTS, rows)


def test_rollouts_do_not_depend_on_the_order_of_rows(tiny_model: Path) -> None:
    engine = ENGINES.get("transformers")(pretrained.load(str(tiny_model), Runtime()), EngineSettings())
    settings = Sampler(top_k=20), 6, 3
    one = engine.sample(PROMPTS, *settings)
    other = sample_rows(engine, PROMPTS[::-1], *settings, [2, 1, 0])[::-1]
    assert [(r.prompt_ids, r.ids) for r in one] == [(r.prompt_ids, r.ids) for r in other]
    assert all(isinstance(r, Rollout) and r.index == i for i, r in enumerate(one))
