"""What every engine must have, and what some have besides (`models.engine`)."""

from pathlib import Path

import pytest

from sdft_cli.config.recipe import EngineSettings, Runtime, Sampler
from sdft_cli.engines.scripted import ScriptedEngine
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.models import pretrained
from sdft_cli.models.engine import ENGINES, Checked, Reporting
from sdft_cli.models.policy import Policy


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return pretrained.load(str(tiny_model), Runtime())


@pytest.mark.parametrize("name", ENGINES.names())
def test_every_engine_has_what_is_required(name: str) -> None:
    engine = ENGINES.get(name)
    assert ENGINES.contract.problem(engine) == "" and engine.name == name
    assert isinstance(engine, Checked) == name.startswith("vllm")


@pytest.mark.parametrize("name", ["scripted", "transformers"])
def test_an_engine_is_made_of_a_policy_and_settings(name: str, policy: Policy) -> None:
    engine = ENGINES.get(name)(policy, EngineSettings())
    assert engine.policy is policy and engine.sync() == 1
    (rollout,) = engine.sample([[5, 6]], Sampler(), 3, 0)
    assert rollout.prompt_ids == [5, 6] and rollout.version == 1 and len(rollout.ids) == len(rollout.logprobs) <= 3
    engine.close()
    engine.close()


def test_some_engines_report_facts(policy: Policy) -> None:
    assert isinstance(TransformersEngine(policy), Reporting) and not isinstance(ScriptedEngine(policy), Reporting)


def test_a_script_decides_what_is_sampled(policy: Policy) -> None:
    engine = ScriptedEngine(policy, script=lambda prompt: [*prompt, policy.chat.eos_id])
    short, cut = engine.sample([[5], [6, 7, 8]], Sampler(), 3, 0)
    assert (short.ids, short.finish) == ([5, policy.chat.eos_id], "stop")
    assert (cut.ids, cut.finish) == ([6, 7, 8], "length")
    assert [r.ids for r in ScriptedEngine(policy).sample([[5]], Sampler(), 3, 0)] == [[policy.chat.eos_id]]
