"""`sdft eval --suite prior` against the harness's own command line, on the same files and settings."""

import json
from pathlib import Path

import pytest
from support import benchmark_files, harness_reference
from support.real_model import make_model
from typer.testing import CliRunner

pytest.importorskip("lm_eval", reason="the extra 'eval' is not installed")

from sdft_cli.cli.app import app
from sdft_cli.errors import UsageError
from sdft_cli.harness import suite
from sdft_cli.runs.results import load_run

SHARED = harness_reference.SHARED


def sdft(*words: str) -> dict:
    """What the command prints with ``--json``."""
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with room for IFEval's 1280 new tokens."""
    texts = [row["prompt"] for row in benchmark_files.IFEVAL] + [json.dumps(benchmark_files.HELLASWAG)]
    if SHARED.is_dir():
        texts += (SHARED / "ifeval" / "input_data.jsonl").read_text().splitlines()[:100]
    return make_model(tmp_path_factory.mktemp("model"), texts, window=4096)


def test_from_the_command_line(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five of the six without --allow-code-execution; then all, of which only the sixth is measured."""
    monkeypatch.chdir(tmp_path)
    folder = benchmark_files.write(tmp_path / "benchmarks")
    words = ["eval", str(model), "--suite", "prior", "--benchmarks", str(folder), "--limit", "1"]
    words += ["--harness-args", "gen_kwargs.max_gen_toks=8", "--set", "evaluation.harness.batch_size=2"]
    five = sdft(*words)
    assert len(five["suite"]["parts"]) == 5 and "mean is over 5" in five["suite"]["note"]
    assert five["settings"]["suite-prior"]["shots"] == 0 and five["settings"]["suite-prior"]["batch_size"] == 2
    rows = [path.read_text().splitlines() for path in (tmp_path / "runs" / "evals").glob("suite-prior-*/*.jsonl")]
    assert max(map(len, rows)) == five["suite"]["n"], "all items are kept as JSON lines"
    measured = []
    real = suite.HarnessRun.measured
    monkeypatch.setattr(
        suite.HarnessRun, "measured", lambda run, engine: measured.append(run.part.name) or real(run, engine)
    )
    assert sdft(*words)["suite"] == five["suite"] and measured == []
    six = sdft(*words, "--allow-code-execution")
    assert measured == ["humaneval"] and len(six["suite"]["parts"]) == 6 and six["suite"]["note"] == ""
    with pytest.raises(UsageError, match="two suites"):
        sdft(*words, "--harness", "gsm8k")


def test_a_run_is_watched_on_it(micro_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after a stage, on the model in memory; the results say what is left out of the mean."""
    monkeypatch.chdir(tmp_path)
    folder = benchmark_files.write(tmp_path / "benchmarks")
    sets = ["max_steps=1", "batch=2", "sampler.max_new_tokens=4", "evaluation.limit=1", "eval_every=0"]
    sets += [f"benchmarks={folder}", "evaluation.harness.args={gen_kwargs={max_gen_toks=4}}"]
    words = ["train", "--model", "micro", "--tasks", "micro-science", "--data", str(micro_data), "--suite", "prior"]
    sdft(*words, "--out", "run", *(word for text in sets for word in ("--set", text)))
    run = load_run("run")
    assert run.suite == "prior" and len(run.parts) == 5 and None not in run.prior
    assert any(remark.startswith("suite prior: HumanEval is left out") for remark in run.remarks)
    assert "mmlu: 2 of 57 subjects" in run.remarks
    assert sdft("eval", "run")["suite"]["accuracy"] == run.prior[-1]  # read, not measured again
    missing = [*words, "--out", "other", "--set", "benchmarks=nowhere"]
    with pytest.raises(UsageError, match="no such folder"):
        sdft(*missing)
    assert not Path("other").exists()


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data files (../shared/data) are not here")
def test_all_six_are_what_the_command_line_gives(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 items each: the same numbers, prompts and responses.

    IFEval is run alone: it draws a letter where one cannot be counted, and what was drawn before depends on the other
    tasks. The others are mixed in the command line's batches, so log-likelihoods differ in their last bits; in
    `test_suite` they are equal bit by bit.
    """
    reference, out, log = tmp_path / "reference", tmp_path / "theirs", tmp_path / "ours"
    reference.mkdir()
    harness_reference.write_tasks(reference)
    names = [task for task, _ in harness_reference.TASKS.values()]
    for tasks in (["ref_ifeval"], [name for name in names if name != "ref_ifeval"]):
        harness_reference.command_line(model, tasks, reference, out, limit=20, batch=16)
    monkeypatch.chdir(tmp_path)
    words = ["--benchmarks", str(SHARED), "--limit", "20", "--allow-code-execution", "--harness-args", f"log={log}"]
    parts = sdft("eval", str(model), "--suite", "prior", *words)["suite"]["parts"]
    theirs, samples = harness_reference.read_results(out)
    results, logged = harness_reference.read_results(log)
    for name, (task, metric) in harness_reference.TASKS.items():
        assert parts[name]["accuracy"] == theirs[task][metric] == results[_ours(name)][metric], name
        assert {k: v for k, v in theirs[task].items() if "," in k} == parts[name]["metrics"], name
    assert set(samples) == {f"ref_{n}" for n in ("hellaswag", "truthfulqa", "ifeval", "winogrande", "humaneval")} | {
        task for task in samples if task.startswith("ref_mmlu_")
    }
    for task, rows in samples.items():
        own = logged[_ours(task.removeprefix("ref_"))]
        assert len(own) == len(rows) == 20
        for mine, yours in zip(own, rows, strict=True):
            assert mine["arguments"] == yours["arguments"], task
            if "ifeval" in task or "humaneval" in task:
                assert mine["resps"] == yours["resps"] and mine["prompt_hash"] == yours["prompt_hash"], task
            else:
                ours_, theirs_ = ([float(r[0][0]) for r in row["resps"]] for row in (mine, yours))
                assert ours_ == pytest.approx(theirs_, abs=1e-3), task
                assert [r[0][1] for r in mine["resps"]] == [r[0][1] for r in yours["resps"]], task


def _ours(name: str) -> str:
    """The packaged task's name of a benchmark."""
    return {"truthfulqa": "truthfulqa_mc1"}.get(name, name)
