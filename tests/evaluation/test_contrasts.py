"""What stands beside an accuracy, and the judge, through `sdft eval` and `sdft grade` on models that are real."""

import json
import math
from pathlib import Path

import pytest
import torch
from support.fault_server import FaultServer, response_of
from typer.testing import CliRunner

from sdft_cli import plugins
from sdft_cli.cli.app import app
from sdft_cli.config.recipe import Recipe, Runtime
from sdft_cli.data import dataset
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import contrasts
from sdft_cli.evaluation.loaded_model import LoadedModel
from sdft_cli.models import pretrained
from sdft_cli.types import Example, Prepared, PrepareOptions


def sdft(*words: str) -> dict:
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def other_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with other weights."""
    policy = pretrained.load(str(tiny_model), Runtime())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    pretrained.save(policy, tmp_path / "other")
    return tmp_path / "other"


def bench(model: Path) -> LoadedModel:
    return LoadedModel(str(model), str(model), Recipe(model=str(model)))


def rows(micro_data: Path, n: int = 6) -> list[Example]:
    return dataset.held_out(micro_data / "micro-science")["test"][:n]


# --- divergence from the base ----------------------------------------------------------------------------------------


def test_the_base_has_not_moved(tiny_model: Path, micro_data: Path) -> None:
    found = contrasts.drift(bench(tiny_model), bench(tiny_model), rows(micro_data), 8, "prompt")
    assert abs(found["to_base"]["value"]) < 1e-6 and abs(found["from_base"]["value"]) < 1e-6


def test_the_divergence_is_that_of_the_formula(tiny_model: Path, other_model: Path, micro_data: Path) -> None:
    """sum over v of p(v) log p(v)/q(v) at every token of the model's own completions, by whole logits."""
    here, there, examples = bench(other_model), bench(tiny_model), rows(micro_data)
    found = contrasts.drift(here, there, examples, 8, "prompt")
    prompts = [here.chat.prompt_ids(e.prompt) for e in examples]
    from sdft_cli.config.recipe import Sampler

    sums, tokens = [0.0, 0.0], 0
    for rollout in here.engine.sample(prompts, Sampler(), 8, 0):
        ids = torch.tensor([rollout.prompt_ids + rollout.ids])
        first = len(rollout.prompt_ids) - 1
        logs = []
        for side in (here, there):
            with torch.no_grad():
                logits = side.engine.policy.core(input_ids=ids).logits[0, first:-1].double()
            logs.append(logits.log_softmax(-1))
        p, q = logs
        sums[0] += float((p.exp() * (p - q)).sum())
        sums[1] += float((q.exp() * (q - p)).sum())
        tokens += len(rollout.ids)
    assert found["tokens"] == tokens and found["completions"] == len(examples)
    assert math.isclose(found["to_base"]["value"], sums[0] / tokens, rel_tol=1e-4)
    assert math.isclose(found["from_base"]["value"], sums[1] / tokens, rel_tol=1e-4)
    assert found["to_base"]["interval"][0] > 0


def test_a_base_of_another_kind_is_refused(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    from support.real_model import make_model

    with pytest.raises(UsageError, match="different vocabularies"):
        contrasts.drift(bench(tiny_model), bench(make_model(tmp_path, ["a b c"])), rows(micro_data), 4, "prompt")


# --- the same rows with help in view ---------------------------------------------------------------------------------


def test_rows_without_help_are_left_out(tiny_model: Path, micro_data: Path) -> None:
    task, [first, second, *_] = plugins.TASKS.get("micro-science"), rows(micro_data)
    article = Example("x", first.prompt, context="an article", answer=first.answer)
    summary, records = contrasts.conditioned(bench(tiny_model), task, [article, second], 4, "context")
    assert [r["id"] for r in records] == ["x"] and summary["n"] + summary["unscored"] == 1
    summary, records = contrasts.conditioned(bench(tiny_model), task, [second], 4, "context")
    assert summary["accuracy"] is None and "no test row has" in summary["note"] and records == []


def test_a_teacher_that_is_made_of_attempts_shows_a_demonstration() -> None:
    recipe = Recipe.model_validate({"views": {"teacher": "attempts"}})
    assert contrasts.view_of("ceiling", recipe) == "demonstration"
    recipe = Recipe.model_validate({"views": {"teacher": "context+demonstration"}})
    assert contrasts.view_of("ceiling", recipe) == "context+demonstration"
    assert contrasts.view_of("oracle", recipe) == "context" and contrasts.view_of("kl", recipe) == "prompt"


def test_the_embedded_model_knows_what_it_is_shown(micro_data: Path, tmp_path: Path, monkeypatch) -> None:
    """It cannot answer alone, and can with a demonstration in view: the ceiling of self-distillation."""
    monkeypatch.chdir(tmp_path)
    words = ["eval", "micro", "--tasks", "micro-tooluse", "--data", str(micro_data), "--limit", "12"]
    found = sdft(*words, "--also", "ceiling,kl,oracle", "--base", "micro")["tasks"]["micro-tooluse"]
    assert found["ceiling"]["accuracy"] > 0.9 > found["accuracy"] + 0.5
    assert abs(found["kl"]["to_base"]["value"]) < 1e-6 and found["oracle"]["accuracy"] is None
    assert sdft(*words, "--also", "ceiling")["tasks"]["micro-tooluse"]["ceiling"] == found["ceiling"]
    shown = CliRunner().invoke(app, [*words, "--also", "ceiling,kl,oracle", "--base", "micro"])
    for line in ("  ceiling", "  kl to base", "  oracle"):
        assert line in shown.stdout
    with pytest.raises(UsageError, match="needs one"):
        sdft(*words, "--also", "kl")
    with pytest.raises(UsageError, match="unknown --also 'orakle'"):
        sdft(*words, "--also", "orakle")


# --- the judge through the commands ----------------------------------------------------------------------------------


@pytest.fixture
def medical(tmp_path: Path) -> Path:
    """A prepared medical task of four open questions."""
    prompts = [[{"role": "user", "content": f"what is sickness {i} ?"}] for i in range(6)]
    found = [Example(f"medical-{i}", p, "a cold .", answer="a cold") for i, p in enumerate(prompts)]
    prepared = Prepared({"train": found[:1], "validation": found[1:2], "test": found[2:]}, source="a test")
    dataset.write_dataset(tmp_path / "data" / "medical", "medical", prepared, PrepareOptions(), {})
    return tmp_path / "data"


def test_eval_with_a_judge(medical: Path, tiny_model: Path, tmp_path: Path, monkeypatch) -> None:
    """The judge's word replaces the scorer's, is part of the settings, and is asked for once."""
    monkeypatch.chdir(tmp_path)
    words = ["eval", str(tiny_model), "--tasks", "medical", "--data", str(medical), "--max-new-tokens", "6"]
    with FaultServer(
        lambda body: "INCORRECT" if "sickness 2" in body["messages"][1]["content"] else "CORRECT"
    ) as server:
        judge = ["--judge", "grader", "--judge-base-url", server.url, "--judge-key-env", "NO_SUCH_KEY"]
        plain, found = sdft(*words), sdft(*words, *judge, "--out", "judged")
        asked = len(server.requests)
        again = sdft(*words, *judge)
        assert len(server.requests) == asked <= 4
    medical_ = found["tasks"]["medical"]
    assert medical_["accuracy"] == 0.75 and medical_["n"] == 4 and "judged by grader" in medical_["note"]
    assert again["tasks"] == found["tasks"] and "judged" not in plain["tasks"]["medical"]["note"]
    assert found["settings"]["medical"]["judge"] == "grader" and "judge" not in plain["settings"]["medical"]
    lines = [json.loads(line) for line in Path("judged/medical.jsonl").read_text().splitlines()]
    assert sorted(row["extracted"] for row in lines) == ["CORRECT"] * 3 + ["INCORRECT"]
    with pytest.raises(UsageError, match="for a judge"):
        sdft(*words, "--judge-base-url", server.url)


def test_pass_at_k_with_a_judge(medical: Path, tiny_model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["eval", str(tiny_model), "--tasks", "medical", "--data", str(medical), "--max-new-tokens", "4"]
    with FaultServer(lambda body: "CORRECT") as server:
        judge = ["--judge", "grader", "--judge-base-url", server.url]
        found = sdft(*words, "--pass-at", "2", *judge)["tasks"]["medical"]
    assert found["pass_at"]["values"] == {"2": 1.0} and found["accuracy"] == 1.0


def test_grade_with_a_judge(medical: Path, tmp_path: Path) -> None:
    said = {"medical-2": "A cold, that is a common cold.", "medical-3": "measles", "medical-4": "I would not know"}
    lines = [json.dumps({"id": name, "completion": text}) for name, text in said.items()]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    words = ["grade", "medical", "--completions", str(tmp_path / "c.jsonl"), "--data", str(medical)]
    verdicts = {"A": "CORRECT", "m": "INCORRECT", "I": "no idea"}
    with FaultServer(lambda body: verdicts[response_of(body)[0]]) as server:
        found = sdft(*words, "--judge", "grader", "--judge-base-url", server.url)
    assert [item["value"] for item in found["items"]] == [1.0, 0.0, None]
    assert found["totals"]["accuracy"] == 0.5 and "1 replies were no verdict" in found["note"]
    assert set(found["items"][0]) == {"id", "value", "extracted", "why", "extra"}


def test_a_task_with_a_scorer_of_its_own_has_no_judge(micro_data: Path, tmp_path: Path) -> None:
    [first, *_] = rows(micro_data)
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": first.id, "completion": "x"}))
    words = ["grade", "micro-science", "--completions", str(tmp_path / "c.jsonl"), "--data", str(micro_data)]
    with pytest.raises(UsageError, match="no rubric"):
        sdft(*words, "--judge", "grader", "--judge-base-url", "http://127.0.0.1:1/v1")
