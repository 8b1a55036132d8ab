"""Diagnostics beside an accuracy, and the judge, through `sdft eval` and `sdft grade` on real models."""

import json
import math
from pathlib import Path

import pytest
import torch
from support.fault_server import FaultServer, response_of
from typer.testing import CliRunner

from sdft_cli import plugins
from sdft_cli.cli.app import app
from sdft_cli.config.recipe import Evaluation, Recipe, Runtime, Sampler
from sdft_cli.data import dataset
from sdft_cli.errors import UsageError
from sdft_cli.evaluation.conditions import Conditions
from sdft_cli.evaluation.diagnostics import DIAGNOSTICS, divergence, helped
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
    policy.save(tmp_path / "other")
    return tmp_path / "other"


def loaded(model: Path) -> LoadedModel:
    return LoadedModel(str(model), str(model), Recipe(model=str(model)))


def rows(micro_data: Path, n: int = 6) -> list[Example]:
    return dataset.held_out(micro_data / "micro-science")["test"][:n]


# --- divergence from the base ----------------------------------------------------------------------------------------


SCIENCE = plugins.TASKS.get("micro-science")


def sampled(max_new_tokens: int) -> Conditions:
    return Conditions("prompt", max_new_tokens=max_new_tokens, sampler=Sampler())


def test_a_model_has_no_divergence_from_itself(tiny_model: Path, micro_data: Path) -> None:
    kl = divergence(loaded(tiny_model), loaded(tiny_model), SCIENCE, rows(micro_data), sampled(8))
    assert abs(kl["to_base"]["value"]) < 1e-6 and abs(kl["from_base"]["value"]) < 1e-6


def test_the_divergence_follows_the_formula(tiny_model: Path, other_model: Path, micro_data: Path) -> None:
    """sum over v of p(v) log p(v)/q(v) at every token of the model's own completions, from all logits at once."""
    here, there, examples = loaded(other_model), loaded(tiny_model), rows(micro_data)
    kl = divergence(here, there, SCIENCE, examples, sampled(8))
    prompts = [here.chat.prompt_ids(e.prompt) for e in examples]
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
    assert kl["tokens"] == tokens and kl["completions"] == len(examples)
    assert math.isclose(kl["to_base"]["value"], sums[0] / tokens, rel_tol=1e-4)
    assert math.isclose(kl["from_base"]["value"], sums[1] / tokens, rel_tol=1e-4)
    assert kl["to_base"]["interval"][0] > 0


def test_a_base_with_another_vocabulary_is_refused(tiny_model: Path, micro_data: Path, tmp_path: Path) -> None:
    from support.real_model import make_model

    with pytest.raises(UsageError, match="different vocabularies"):
        other = loaded(make_model(tmp_path, ["a b c"]))
        divergence(loaded(tiny_model), other, SCIENCE, rows(micro_data), sampled(4))


# --- the same rows with help in view ---------------------------------------------------------------------------------


def test_rows_without_help_are_left_out(tiny_model: Path, micro_data: Path) -> None:
    first, second, *_ = rows(micro_data)
    conditions = Conditions("context", max_new_tokens=4)
    article = Example("x", first.prompt, context="an article", answer=first.answer)
    summary, records = helped(loaded(tiny_model), SCIENCE, [article, second], conditions)
    assert [r["id"] for r in records] == ["x"] and summary["n"] + summary["unscored"] == 1
    summary, records = helped(loaded(tiny_model), SCIENCE, [second], conditions)
    assert summary["accuracy"] is None and "no test row has" in summary["note"] and records == []


def view_of(name: str, teacher: str) -> str:
    recipe = Recipe.model_validate({"views": {"teacher": teacher}})
    return DIAGNOSTICS[name].conditions(recipe, Evaluation()).view


def test_each_diagnostic_has_its_view() -> None:
    """The ceiling has the teacher's, or a demonstration where the teacher's is made of a batch's own attempts."""
    assert view_of("ceiling", "attempts") == "demonstration"
    assert view_of("ceiling", "context+demonstration") == "context+demonstration"
    assert view_of("oracle", "context+demonstration") == "context"
    assert view_of("kl", "context+demonstration") == "prompt"


def test_the_embedded_model_solves_what_it_is_shown(micro_data: Path, tmp_path: Path, monkeypatch) -> None:
    """It fails alone and succeeds with a demonstration in view: the ceiling of self-distillation."""
    monkeypatch.chdir(tmp_path)
    words = ["eval", "micro", "--tasks", "micro-tooluse", "--data", str(micro_data), "--limit", "12"]
    summary = sdft(*words, "--also", "ceiling,kl,oracle", "--base", "micro")["tasks"]["micro-tooluse"]
    assert summary["ceiling"]["accuracy"] > 0.9 > summary["accuracy"] + 0.5
    assert abs(summary["kl"]["to_base"]["value"]) < 1e-6 and summary["oracle"]["accuracy"] is None
    assert sdft(*words, "--also", "ceiling")["tasks"]["micro-tooluse"]["ceiling"] == summary["ceiling"]
    printed = CliRunner().invoke(app, [*words, "--also", "ceiling,kl,oracle", "--base", "micro"])
    for line in ("  ceiling", "  kl to base", "  oracle"):
        assert line in printed.stdout
    with pytest.raises(UsageError, match="needs a base model"):
        sdft(*words, "--also", "kl")
    with pytest.raises(UsageError, match="unknown --also 'orakle'"):
        sdft(*words, "--also", "orakle")


# --- the judge through the commands ----------------------------------------------------------------------------------


@pytest.fixture
def medical(tmp_path: Path) -> Path:
    """A prepared medical task of four open questions."""
    prompts = [[{"role": "user", "content": f"what is sickness {i} ?"}] for i in range(6)]
    rows = [Example(f"medical-{i}", p, "a cold .", answer="a cold") for i, p in enumerate(prompts)]
    prepared = Prepared({"train": rows[:1], "validation": rows[1:2], "test": rows[2:]}, source="a test")
    dataset.write_dataset(tmp_path / "data" / "medical", "medical", prepared, PrepareOptions(), {})
    return tmp_path / "data"


def test_eval_with_a_judge(medical: Path, tiny_model: Path, tmp_path: Path, monkeypatch) -> None:
    """The judge's verdict replaces the grader's, the judge is part of the settings, and is asked once."""
    monkeypatch.chdir(tmp_path)
    words = ["eval", str(tiny_model), "--tasks", "medical", "--data", str(medical), "--max-new-tokens", "6"]
    with FaultServer(
        lambda body: "INCORRECT" if "sickness 2" in body["messages"][1]["content"] else "CORRECT"
    ) as server:
        judge = ["--judge", "grader", "--judge-base-url", server.url, "--judge-key-env", "NO_SUCH_KEY"]
        plain, judged = sdft(*words), sdft(*words, *judge, "--out", "judged")
        requests = len(server.requests)
        again = sdft(*words, *judge)
        assert len(server.requests) == requests <= 4
    medical_ = judged["tasks"]["medical"]
    assert medical_["accuracy"] == 0.75 and medical_["n"] == 4 and "judged by grader" in medical_["note"]
    assert again["tasks"] == judged["tasks"] and "judged" not in plain["tasks"]["medical"]["note"]
    assert judged["settings"]["medical"]["judge"] == "grader" and "judge" not in plain["settings"]["medical"]
    lines = [json.loads(line) for line in Path("judged/medical.jsonl").read_text().splitlines()]
    assert sorted(row["extracted"] for row in lines) == ["CORRECT"] * 3 + ["INCORRECT"]
    with pytest.raises(UsageError, match="for a judge"):
        sdft(*words, "--judge-base-url", server.url)


def test_pass_at_k_with_a_judge(medical: Path, tiny_model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["eval", str(tiny_model), "--tasks", "medical", "--data", str(medical), "--max-new-tokens", "4"]
    with FaultServer(lambda body: "CORRECT") as server:
        judge = ["--judge", "grader", "--judge-base-url", server.url]
        summary = sdft(*words, "--pass-at", "2", *judge)["tasks"]["medical"]
    assert summary["pass_at"]["values"] == {"2": 1.0} and summary["accuracy"] == 1.0


def test_grade_with_a_judge(medical: Path, tmp_path: Path) -> None:
    completions = {
        "medical-2": "A cold, that is a common cold.",
        "medical-3": "measles",
        "medical-4": "I would not know",
    }
    lines = [json.dumps({"id": name, "completion": text}) for name, text in completions.items()]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    words = ["grade", "medical", "--completions", str(tmp_path / "c.jsonl"), "--data", str(medical)]
    verdicts = {"A": "CORRECT", "m": "INCORRECT", "I": "no idea"}
    with FaultServer(lambda body: verdicts[response_of(body)[0]]) as server:
        report = sdft(*words, "--judge", "grader", "--judge-base-url", server.url)
    assert [item["value"] for item in report["items"]] == [1.0, 0.0, None]
    assert report["totals"]["accuracy"] == 0.5 and "1 replies could not be read" in report["note"]
    assert set(report["items"][0]) == {"id", "value", "extracted", "why", "extra", "exact"}


def test_a_task_without_a_rubric_takes_no_judge(micro_data: Path, tmp_path: Path) -> None:
    [first, *_] = rows(micro_data)
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": first.id, "completion": "x"}))
    words = ["grade", "micro-science", "--completions", str(tmp_path / "c.jsonl"), "--data", str(micro_data)]
    with pytest.raises(UsageError, match="no rubric"):
        sdft(*words, "--judge", "grader", "--judge-base-url", "http://127.0.0.1:1/v1")
