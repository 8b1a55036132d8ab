"""The EleutherAI harness as a library gives what the harness alone gives: numbers, prompts and responses."""

import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import benchmark_files
from support.real_model import make_model

pytest.importorskip("lm_eval", reason="the extra 'eval' is not installed")

from sdft_cli import plugins
from sdft_cli.config.recipe import Evaluation, Harness, Lora, Runtime
from sdft_cli.errors import UsageError
from sdft_cli.evaluation import scoring, summaries
from sdft_cli.harness import items, suite, tasks
from sdft_cli.harness.benchmarks import BENCHMARKS
from sdft_cli.models import pretrained
from sdft_cli.models.engine import ENGINES

PRIOR = plugins.SUITES.get("prior")
FEW = {"gen_kwargs": {"max_gen_toks": 12}}  # else IFEval asks for 1280 new tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return benchmark_files.write(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [
        json.dumps(rows) for rows in (benchmark_files.HELLASWAG, benchmark_files.IFEVAL, benchmark_files.HUMANEVAL)
    ]
    return make_model(tmp_path_factory.mktemp("model"), texts, window=1024)


@pytest.fixture(scope="module")
def engine(model: Path):
    return ENGINES.get("transformers")(pretrained.load(str(model), Runtime()))


def settings_of(folder: Path | None, limit: int | None = None, **settings) -> Evaluation:
    benchmarks = str(folder) if folder else None
    return Evaluation(limit=limit, harness=Harness(benchmarks=benchmarks, **{"args": FEW, "batch_size": 4, **settings}))


def alone(model: Path, name: str, folder: Path, scratch: Path, **settings) -> dict:
    """The harness by itself: its own model from the path, and a task file with rows in the hub's columns."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    benchmark = BENCHMARKS[name]
    [(split, rows)] = benchmark.read(benchmark.folder(str(folder))).items()
    benchmark_files.lines(scratch / "rows.jsonl", rows)
    home = Path(sys.modules["lm_eval.tasks"].__file__).parent / benchmark.home
    above = next(home / file for file in (f"{benchmark.task}.yaml", "default.yaml") if (home / file).is_file())
    text = f"include: {above}\ntask: alone\ndataset_path: json\ndataset_name: null\ntraining_split: null\n"
    (scratch / "alone.yaml").write_text(f"{text}dataset_kwargs: {{data_files: {{{split}: {scratch}/rows.jsonl}}}}\n")
    return simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model)},
        device="cpu",
        tasks=["alone"],
        task_manager=TaskManager(include_defaults=False, include_path=str(scratch)),
        batch_size=4,
        **settings,
    )


# --- the same as the harness ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hellaswag", "truthfulqa", "winogrande"])
def test_a_choice_is_scored_as_by_the_harness_alone(
    engine, model: Path, folder: Path, tmp_path: Path, name: str
) -> None:
    theirs = alone(model, name, folder, tmp_path)
    records, facts = PRIOR.measure(engine, settings_of(folder), name)
    assert facts["metrics"] == {k: v for k, v in theirs["results"]["alone"].items() if "," in k}
    for record, sample in zip(records, theirs["samples"]["alone"], strict=True):
        assert record["value"] == sample["acc"]
        assert record["log_likelihoods"] == [response[0] for response in sample["filtered_resps"]]
        contexts = {arguments[0] for arguments in sample["arguments"]}
        shown = record["choices"] if name == "winogrande" else [record["prompt"]]
        assert set(shown) == contexts
    assert summaries.summarize(records)["accuracy"] == facts["metrics"]["acc,none"]


@pytest.mark.parametrize("chat", [False, True])
def test_a_completion_is_scored_as_by_the_harness_alone(
    engine, model: Path, folder: Path, tmp_path: Path, chat: bool
) -> None:
    from sdft_cli.harness.ifeval import prepare

    prepare(offline=True)
    theirs = alone(model, "ifeval", folder, tmp_path, limit=2, apply_chat_template=chat, **FEW)
    records, facts = PRIOR.measure(engine, settings_of(folder, 2, apply_chat_template=chat), "ifeval")
    assert facts["metrics"] == {k: v for k, v in theirs["results"]["alone"].items() if "," in k}
    samples = theirs["samples"]["alone"]
    assert ("<|im_start|>" in records[0]["prompt"]) is chat
    for i, sample in enumerate(samples):
        of_sample = [record for record in records if record["document"] == f"ifeval-{i}"]
        assert {(r["prompt"], r["completion"]) for r in of_sample} == {
            (sample["arguments"][0][0], sample["resps"][0][0])
        }
        assert [r["value"] for r in of_sample] == [float(x) for x in sample["inst_level_loose_acc"]]
    assert summaries.summarize(records)["accuracy"] == facts["metrics"]["inst_level_loose_acc,none"]


def test_shots_reach_the_prompt(engine, folder: Path) -> None:
    none, _ = PRIOR.measure(engine, settings_of(folder), "mmlu")
    some, _ = PRIOR.measure(engine, settings_of(folder, num_fewshot=2), "mmlu")
    assert none[0]["prompt"].count("Answer:") == 1 and some[0]["prompt"].count("Answer:") == 3
    assert PRIOR.settings(settings_of(folder))["shots"] == 0
    assert PRIOR.settings(settings_of(folder, num_fewshot=2))["shots"] == 2


def test_mmlu_weights_every_question_equally(engine, folder: Path) -> None:
    records, facts = PRIOR.measure(engine, settings_of(folder), "mmlu")
    assert len(records) == 5 and facts["note"] == "2 of 57 subjects"
    assert sum(r["value"] for r in records) / 5 == pytest.approx(facts["metrics"]["acc,none"])
    assert (
        len(PRIOR.measure(engine, settings_of(folder, 1), "mmlu")[0]) == 2
    )  # the harness applies its limit per subject


def test_humaneval_is_the_packaged_task_except_for_its_scoring() -> None:
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    theirs = load_yaml(Path(lm_eval.tasks.__file__).parent / "humaneval" / "humaneval.yaml", resolve_func=False)
    ours = load_yaml(tasks.HUMANEVAL, resolve_func=False)
    assert {k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k)} == {
        "metric_list",
        "process_results",
        "filter_list",
    }
    assert [f["name"] for f in ours["filter_list"]] == [f["name"] for f in theirs["filter_list"]] == ["create_test"]


def test_a_model_with_an_adapter_is_measured_with_it(model: Path, folder: Path) -> None:
    torch.manual_seed(0)
    policy = pretrained.load(str(model), Runtime(), Lora(rank=2))
    wrapped = ENGINES.get("transformers")(policy)
    before, _ = PRIOR.measure(wrapped, settings_of(folder), "winogrande")
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    after, _ = PRIOR.measure(wrapped, settings_of(folder), "winogrande")
    assert before[0]["log_likelihoods"] != after[0]["log_likelihoods"]


def test_another_engine_writes_the_completions(engine, folder: Path) -> None:
    """Our engine's greedy tokens are those of the harness, cut at the same stop sequences."""
    other = SimpleNamespace(policy=engine.policy, sample=engine.sample, name="other")
    for part in ("ifeval", "humaneval"):
        settings = settings_of(folder, allow_code_execution=True)
        ours, theirs = (PRIOR.measure(e, settings, part)[0] for e in (other, engine))
        assert [r["completion"] for r in ours] == [r["completion"] for r in theirs]


def test_right_completions_pass_humaneval_in_the_sandbox(folder: Path) -> None:
    from sdft_cli.harness.humaneval import process_results

    for row in benchmark_files.HUMANEVAL:
        right, wrong = (row["prompt"] + text for text in (row["canonical_solution"], "    return a\n"))
        assert process_results(row, [[right]]) == {"pass@1": 1.0}
        assert process_results(row, [[wrong]]) == {"pass@1": 0.0}
        assert process_results(row, [[right, wrong]]) == {"pass@1": 0.5}


# --- as a suite ------------------------------------------------------------------------------------------------------


def test_the_six_have_a_plain_mean(engine, folder: Path) -> None:
    settings = settings_of(folder, 2, allow_code_execution=True)
    summary, records = scoring.score_suite(engine, engine.policy.chat, PRIOR, "prompt", settings)
    assert list(summary["parts"]) == list(BENCHMARKS) and summary["note"] == ""
    values = [part["accuracy"] for part in summary["parts"].values()]
    assert summary["accuracy"] == pytest.approx(sum(values) / 6)
    assert len({r["id"] for r in records}) == len(records)
    assert json.loads(json.dumps(summary)) == summary


def test_without_permission_no_code_is_run_and_the_note_says_so(folder: Path) -> None:
    settings = settings_of(folder)
    assert "humaneval" not in PRIOR.parts(settings)
    assert PRIOR.note(settings).endswith("The mean is over 5.") and "--allow-code-execution" in PRIOR.note(settings)
    assert PRIOR.settings(settings)["tasks"] != PRIOR.settings(settings_of(folder, allow_code_execution=True))["tasks"]
    with pytest.raises(UsageError, match="humaneval runs code"):
        plugins.SUITES.get("harness").parts(settings_of(folder, tasks=("humaneval",)))


def test_nothing_scans_the_harness_and_nothing_else_is_disturbed(engine, folder: Path, monkeypatch, capsys) -> None:
    from lm_eval.tasks._index import TaskIndex

    seen = []
    files = TaskIndex._iter_yaml_files
    monkeypatch.setattr(TaskIndex, "_iter_yaml_files", lambda root: (seen.append(p) or p for p in files(root)))
    random.seed(7), torch.manual_seed(7)
    expected = random.Random(7).random(), torch.rand(1, generator=torch.Generator().manual_seed(7))
    PRIOR.measure(engine, settings_of(folder, 1), "hellaswag")
    assert len(seen) == 1
    assert (random.random(), torch.rand(1)) == expected
    assert capsys.readouterr().out == ""


def test_online_too_only_a_benchmarks_own_folder_is_read() -> None:
    """The task files that are read for the hub's benchmarks; their data is not available here."""
    for benchmark in BENCHMARKS.values():
        place = tasks._packaged() / benchmark.home
        assert place.is_dir() and len(list(place.rglob("*.yaml"))) < 100, benchmark.name


def test_settings_tell_files_and_versions_apart(folder: Path, tmp_path: Path) -> None:
    before = PRIOR.settings(settings_of(folder))
    other = benchmark_files.write(tmp_path)
    assert PRIOR.settings(settings_of(other)) == before
    benchmark_files.lines(other / "hellaswag" / "hellaswag_val.jsonl", benchmark_files.HELLASWAG[:2])
    assert PRIOR.settings(settings_of(other))["data"] != before["data"]
    assert PRIOR.settings(settings_of(None))["data"] == "hub"
    assert before["sentences"] in ("sdft", "punkt_tab") and before["harness"]


def test_any_task_by_name(engine, folder: Path) -> None:
    any_task = plugins.SUITES.get("harness")
    settings = settings_of(folder, 2, tasks=("hellaswag:acc_norm", "truthfulqa_mc1"))
    assert any_task.parts(settings) == ["hellaswag", "truthfulqa"]
    _, facts = any_task.measure(engine, settings, "hellaswag")
    assert facts["metric"] == "acc_norm,none"
    with pytest.raises(UsageError, match="metric 'f1'"):
        any_task.measure(engine, settings_of(folder, 2, tasks=("hellaswag:f1",)), "hellaswag")


def test_what_is_impossible_is_refused_by_name(engine, folder: Path, monkeypatch) -> None:
    with pytest.raises(UsageError, match="no task"):
        plugins.SUITES.get("harness").parts(settings_of(folder))
    with pytest.raises(UsageError, match="argument of the harness 'max_lenght'") as error:
        PRIOR.measure(engine, settings_of(folder, args={"max_lenght": 3}), "hellaswag")
    assert "max_length" in error.value.hint
    with pytest.raises(UsageError, match="asks for 2000 new tokens, but the model's context holds 1024"):
        PRIOR.measure(engine, settings_of(folder, args={"gen_kwargs": {"max_gen_toks": 2000}}), "ifeval")
    monkeypatch.setattr(suite.programs, "ready", lambda: (_ for _ in ()).throw(UsageError("cannot be confined")))
    with pytest.raises(UsageError, match="cannot be confined"):  # before a model is loaded
        PRIOR.settings(settings_of(folder, allow_code_execution=True))
    monkeypatch.setattr(suite, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="lm_eval is not installed") as error:
        PRIOR.settings(settings_of(folder))
    assert error.value.code == 2 and "sdft-cli[eval]" in error.value.hint


def test_the_harness_own_files_are_written(engine, folder: Path, tmp_path: Path) -> None:
    PRIOR.measure(engine, settings_of(folder, 2, log=str(tmp_path)), "hellaswag")
    [results], [samples] = list(tmp_path.rglob("results_*.json")), list(tmp_path.rglob("samples_hellaswag_*.jsonl"))
    assert json.loads(results.read_text())["results"]["hellaswag"]["sample_len"] == 2
    assert len(samples.read_text().splitlines()) == 2


# --- from the log to item records ---------------------------------------------------------------------------------


def sample(**more) -> dict:
    row = {"doc_id": 0, "doc": {}, "target": "x", "filter": "none", "arguments": [("prompt", {})], "resps": [["y"]]}
    return {**row, "filtered_resps": ["y"], **more}


def test_a_metric_that_is_no_mean_over_items_stands_alone() -> None:
    rows = {"t": [sample(doc_id=i, word_perplexity=(-3.0, 5)) for i in range(2)]}
    records = items.records("t", rows, "word_perplexity,none", len)
    facts = items.part_facts(records, {"name": "t", "word_perplexity,none": 41.5}, "word_perplexity,none")
    assert facts["accuracy"] is None and facts["metrics"] == {"word_perplexity,none": 41.5}
    assert [r["value"] for r in records] == [None, None]
    rows = {"t": [sample(doc_id=i, f1=(1, i)) for i in range(2)]}
    records = items.records("t", rows, "f1,none", len)
    assert items.part_facts(records, {"f1,none": 0.8}, "f1,none")["accuracy"] == 0.8


def test_a_partial_score_is_kept_and_filters_are_told_apart() -> None:
    rows = {"t": [sample(score=0.25), sample(score=1.0, filter="strict"), sample(doc_id=1, score=0.75)]}
    records = items.records("t", rows, "score,none", len)
    assert [(r["id"], r["value"]) for r in records] == [("t-0", 0.25), ("t-1", 0.75)]
    assert items.part_facts(records, {"score,none": 0.5}, "score,none")["accuracy"] == 0.5
    assert [r["value"] for r in records] == [0.25, 0.75]


def test_accuracy_counts_or_else_the_first_metric() -> None:
    results = {"name": "t", "alias": "t", "sample_len": 3, "exact_match,strict": 0.1, "exact_match,flexible": 0.2}
    results |= {"exact_match_stderr,strict": 0.0}
    assert items.metric_of(results, None) == "exact_match,strict"
    assert items.metric_of(results, "exact_match:flexible") == "exact_match,flexible"
    assert items.metric_of({**results, "acc,none": 1.0}, None) == "acc,none"
    with pytest.raises(UsageError, match="no metric"):
        items.part_facts([], {}, items.metric_of({"name": "t"}, None))


def test_an_unknown_task_is_an_error_with_a_guess(monkeypatch) -> None:
    manager = SimpleNamespace(all_tasks=["gsm8k", "arc_easy"])
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda **_: manager)
    with pytest.raises(UsageError, match="harness task 'gsm9k'") as error:
        tasks.load(tasks.parse("gsm9k"), None, Path("."))
    assert "gsm8k" in error.value.hint
