"""Runs of open answers with a judge on loopback: in training, resumed, out of money, and judged afterwards."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.fault_server import FaultServer, content
from support.open_tasks import asked, is_trial, judging, matrix, prepare, rows, sdft, verdict

from sdft_cli.llm import retries
from sdft_cli.runs import results

SETS = ["max_steps=2", "batch=2", "eval_every=1", "eval_limit=3", "checkpoint_every=0", "threads=1", "lr=1e-3"]


@pytest.fixture(scope="module")
def data(micro_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(micro_data, tmp_path_factory.mktemp("open"))


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_BACKOFF", 0.01)
    monkeypatch.setattr(retries, "LONGEST_BACKOFF", 0.02)


def train(model: Path, data: Path, out: Path, *more: str, code: int = 0, tasks: str = "one,two") -> str:
    words = ["train", "--tasks", tasks, "--method", "sft", "--model", str(model), "--data", str(data)]
    words += [word for text in [*SETS, f"judge.replies={out.parent}/replies"] for word in ("--set", text)]
    return sdft(*words, "--out", str(out), *more, code=code)


@pytest.fixture(scope="module")
def whole(tiny_model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was judged from its start."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with FaultServer(verdict) as server:
        train(tiny_model, data, out, *judging(server))
        assert max(asked(server).values()) == 1  # no question twice
        assert sum(map(is_trial, server.requests)) == 1
    return out


def test_every_stage_is_judged(whole: Path) -> None:
    run = results.load_run(whole)
    assert len({value for row in run.matrix for value in row}) > 1
    assert [len(row) for row in run.matrix] == [2, 2, 2] and all(None not in row for row in run.matrix)
    assert run.metrics["backward_transfer"] is not None
    for stage in range(3):
        for task in ("one", "two"):
            assert run.settings[stage][task]["judge"] == "grader"
            for item in run.items(stage, task):
                # the same rule as the judge's, from the completion alone
                text = item["completion"].strip()
                right = verdict({"messages": [{"content": fenced(text)}]}) == "CORRECT" if text else False
                assert item["value"] == float(right)
    assert all(row["scores"]["one"]["accuracy"] is not None for row in rows(whole, "eval"))
    recipe = json.loads((whole / "recipe.json").read_text())
    assert recipe["judge"]["model"] == "grader" and recipe["judge"]["key_env"] == "NO_SUCH_KEY"


def fenced(response: str) -> str:
    return f"=== question x begins ===\n\n=== response x begins ===\n{response}\n=== response x ends ==="


def test_eval_with_a_judge_fills_the_matrix_as_if_it_had_been_there(
    whole: Path, tiny_model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    train(tiny_model, data, out)
    assert results.load_run(out).matrix == [[None, None]] * 3
    no_models(monkeypatch)
    with FaultServer(verdict) as server:
        sdft("eval", str(out), *judging(server))
        assert max(asked(server).values()) == 1
        count = len(server.requests)
        scores = json.loads(sdft("eval", str(out), *judging(server), "--json"))
        assert len(server.requests) == count  # nothing is left to ask
    sdft("eval", str(out), "--max-forgetting", "1")  # gates can be decided, and without a judge at hand
    assert matrix(out) == matrix(whole)
    assert scores["metrics"]["backward_transfer"]["value"] == results.load_run(whole).metrics["backward_transfer"]
    assert json.loads((out / "recipe.json").read_text())["judge"]["model"] == "grader"


def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdft_cli.models import pretrained

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(pretrained, "load", refuse)


def test_another_judge_takes_over_wholly_or_not_at_all(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = matrix(run)
    with FaultServer(lambda body: "INCORRECT", lambda body, n: "401" if len(server.requests) > 4 else None) as server:
        said = sdft("eval", str(run), *judging(server, "other"), code=2)
        assert "401" in said and "--judge-key-env" in said and matrix(run) == before
        settled = [content(body) for body in server.requests[:4]]
        server.script = lambda body, n: None
        sdft("eval", str(run), *judging(server, "other"))
        assert [asked(server)[question] for question in settled] == [1] * 4
        summary = json.loads(sdft("eval", str(run), "--pass-at", "2", "--json"))["tasks"]["one"]
        assert summary["pass_at"]["values"] == {"2": 0.0}  # by the run's judge
    sdft("eval", str(run), "--max-forgetting", "1")  # samples that nobody asks for are not judged again
    after = results.load_run(run)
    assert {stage[task]["judge"] for stage in after.settings.values() for task in ("one", "two")} == {"other"}
    assert after.matrix == [[0.0, 0.0]] * 3 != results.load_run(whole).matrix
    assert json.loads((run / "recipe.json").read_text())["judge"]["model"] == "other"


def test_a_judge_that_gives_no_verdict_replaces_no_scores(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = (matrix(run), (run / "recipe.json").read_bytes())
    with FaultServer(lambda body: "I think that it is right.") as server:
        said = sdft("eval", str(run), *judging(server, "talker"), code=1)
    assert "replies could be read: talker replied 'I think that it is right.'" in said
    assert (matrix(run), (run / "recipe.json").read_bytes()) == before


def test_a_bound_leaves_answers_unscored_and_training_goes_on(
    whole: Path, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with FaultServer(verdict) as server:
        said = train(tiny_model, data, out, *judging(server), "--set", "judge.max_requests=7")
        assert "judge.max_requests=7 is used up" in said and "answers are not judged" in said
        assert "goes on with a higher limit" in said and "of a failure: judge.max_requests=7 is used up" in said
        assert sum(asked(server).values()) == 7
        assert not (out / "done.json").exists()  # not everything is measured
        notes = [row for row in rows(out, "note") if "not judged" in row["text"]]
        assert [row["stage"] for row in notes] == [0, 1, 2]
        planned = sdft("train", "--resume", "--out", str(out), "--set", "judge.max_requests=8", "--dry-run")
        assert "judge.max_requests=8, of which 7 are used, may not be enough" in planned
        again = sdft("train", "--resume", "--out", str(out))  # the bound is the whole run's
        assert "is used up" in again and sum(asked(server).values()) == 7
        sdft("train", "--resume", "--out", str(out), "--set", "judge.max_requests=1000")
        assert max(asked(server).values()) == 1
    assert matrix(out) == matrix(whole) and (out / "done.json").is_file()


def test_a_judge_that_fails_in_mid_run_stops_nothing(whole: Path, tiny_model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with FaultServer(verdict, lambda body, n: "500" if len(server.requests) > 9 else None) as server:
        said = train(tiny_model, data, out, *judging(server))
        assert "answers are not judged" in said and f"sdft eval {out} --judge grader" in said
        assert any(row["scores"]["one"]["accuracy"] is None and row["note"] for row in rows(out, "eval"))
        good = {content(body) for body in server.requests[:9]}
        server.script = lambda body, n: None
        server.requests.clear()
        sdft("train", "--resume", "--out", str(out))
        assert not good & set(asked(server))  # what is settled is not asked again
    assert matrix(out) == matrix(whole)
    assert not any("not judged" in note for note in results.load_run(out).remarks)


@pytest.mark.parametrize(
    ("script", "says"),
    [("401", "--judge-key-env"), ("404", "--judge-base-url"), (None, "does not respond")],
)
def test_a_judge_that_cannot_work_is_found_before_the_first_step(
    script: str | None, says: str, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    with FaultServer(verdict, lambda body, n: script) as server:
        flags = judging(server)
        if script is None:
            flags[3] = "http://127.0.0.1:9/v1"
        said = train(tiny_model, data, tmp_path / "run", *flags, code=2)
    assert says in said and said.count("error:") == 1 and not (tmp_path / "run").exists()


def test_a_judge_of_a_run_stays_its_judge(whole: Path) -> None:
    run = str(whole)
    said = sdft("train", "--continue", run, "--tasks", "one", "--judge", "other", code=2)
    assert "--judge: the run has grader" in said and "sdft eval RUN --judge MODEL" in said
    (whole / "done.json").rename(whole / "was-done.json")  # as if it was under way
    try:
        said = sdft("train", "--resume", "--out", run, "--judge", "other", code=2)
    finally:
        (whole / "was-done.json").rename(whole / "done.json")
    assert "--judge: the run has started with another value" in said


def test_judge_settings_that_contradict_each_other_are_refused(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    def refused(*more: str) -> str:
        return train(tiny_model, data, tmp_path / "run", *more, code=2)

    assert "--judge-base-url is for a judge" in refused("--judge-base-url", "http://localhost:1/v1")
    assert "judge.max_cost needs prices" in refused("--judge", "x", "--set", "judge.max_cost=1")
    assert "neither an endpoint nor a price" in refused("--judge", "local:micro", "--set", "judge.price_in=1")
    for url in ("http://user:hunter2@localhost/v1", "http://localhost/v1?api-key=hunter2"):
        said = refused("--judge", "x", "--judge-base-url", url)
        assert "--judge-key-env" in said and "hunter2" not in said
    assert not (tmp_path / "run").exists()


def test_dry_run_predicts_what_is_asked(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    words = ["--judge", "big", "--judge-base-url", "http://127.0.0.1:9/v1", "--dry-run", "--set", "judge.price_in=2"]
    facts = json.loads(train(tiny_model, data, tmp_path / "run", *words, "--json"))["judge"]
    # of two tasks 5 test rows, three times; and 3 validation rows, before the first step and after each of four
    assert facts["requests"] == 5 * 2 * 3 + 3 * 2 * 5
    assert facts["cost"][0] == pytest.approx(2e-6 * facts["prompt_tokens"][0])
    said = train(tiny_model, data, tmp_path / "run", *words, "--set", "judge.max_requests=9")
    assert "judge big: at most 60 requests" in said and "judge.max_requests=9 may not be enough" in said


# --- sweeps, probes, kills, rubrics ----------------------------------------------------------------------------------


def sweep(model: Path, data: Path, out: Path, *more: str, code: int = 0) -> str:
    words = ["sweep", "--tasks", "one", "--method", "sft", "--model", str(model), "--data", str(data), "--jobs", "2"]
    words += [word for text in [*SETS, f"judge.replies={out.parent}/replies"] for word in ("--set", text)]
    return sdft(*words, "--grid", "lr=1e-4,1e-2", "--out", str(out), *more, code=code)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_points_of_a_sweep_share_replies_and_limits(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    """Two points side by side: what the base model answers is the same in both, and is asked about once."""
    with FaultServer(verdict) as server:
        record = json.loads(sweep(tiny_model, data, tmp_path / "sweep", *judging(server), "--json"))
        assert max(asked(server).values()) == 1
        questions = sum(asked(server).values())
        assert questions <= 8 + 2 * (2 * 3 + 5)  # what the base answers is judged once
    assert not record["failed"] and all(point["result"]["validation"] is not None for point in record["points"])
    spent = [json.loads(line) for line in (tmp_path / "sweep" / "judge-requests.jsonl").read_text().splitlines()]
    assert sum(row["requests"] for row in spent) == questions
    assert not list((tmp_path / "sweep").glob("*/judge-requests.jsonl"))
    said = sdft("sweep", "--tasks", "one", "--grid", "judge.model=a,b", "--data", str(data), code=2)
    assert "judge.model cannot be in a grid" in said


def test_a_probe_of_open_answers_has_a_gain(tiny_model: Path, data: Path) -> None:
    words = ["probe", "--tasks", "one", "--model", str(tiny_model), "--data", str(data), "--limit", "4", "--json"]
    words += ["--set", "threads=1", "--set", "batch=2"]
    unjudged = json.loads(sdft(*words))
    with FaultServer(verdict) as server:
        report = json.loads(sdft(*words, *judging(server)))
        count = len(server.requests)
        sdft(*words, *judging(server))
        assert len(server.requests) == count + 1  # the trial
    assert unjudged["tasks"][0]["gain"] is None
    [warning] = [each for each in unjudged["warnings"] if each["what"] == "unknown"]
    assert "--judge MODEL" in warning["hint"] and "--demonstrations" not in warning["hint"]
    [task] = report["tasks"]
    assert task["gain"] is not None and task["student"]["n"] == task["teacher"]["n"] == 4
    assert "judged by grader" in task["note"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_that_is_killed_while_it_asks_goes_on_without_asking_again(
    whole: Path, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with FaultServer(verdict, lambda body, n: "hang" if len(server.requests) > 6 else None, hang=60) as server:
        words = [sys.executable, "-m", "sdft_cli", "train", "--tasks", "one,two", "--method", "sft"]
        words += ["--model", str(tiny_model), "--data", str(data), "--out", str(out), *judging(server)]
        words += [word for text in [*SETS, f"judge.replies={tmp_path}/replies"] for word in ("--set", text)]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(server.requests) < 9 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
        settled = stored(tmp_path / "replies" / "one.sqlite")
        assert settled
        server.script = lambda body, n: None
        server.requests.clear()
        sdft("train", "--resume", "--out", str(out))
        assert not settled & set(asked(server))
    assert matrix(out) == matrix(whole)


def stored(replies: Path) -> set[str]:
    """The questions to which a reply is stored."""
    base = sqlite3.connect(replies)
    try:
        bodies = base.execute("SELECT DISTINCT body FROM request JOIN reply USING (digest)").fetchall()
        return {content(json.loads(body)) for (body,) in bodies}
    finally:
        base.close()


def test_a_rubric_of_ones_own_reaches_the_judge_and_overrules_a_rule(
    micro_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    columns = 'grader = "contains"\nrubric = "It names a symptom."\nmax_new_tokens = 4\n'
    data = prepare(micro_data, tmp_path, ["mine"], columns)
    out = tmp_path / "run"
    with FaultServer(lambda body: "CORRECT") as server:
        train(tiny_model, data, out, *judging(server), "--set", "eval_every=0", tasks="mine")
        [body, *_] = [body for body in server.requests if not is_trial(body)]
    assert "It names a symptom." in body["messages"][0]["content"]
    items = results.load_run(out).items(0, "mine")
    assert all(item["extra"]["without judge"] == 0.0 for item in items) and any(item["value"] == 1.0 for item in items)
    plain = tmp_path / "plain"
    train(tiny_model, data, plain, "--set", "eval_every=0", tasks="mine")  # without a judge, the rule decides
    assert results.load_run(plain).matrix == [[0.0], [0.0]]


def test_what_no_judge_can_score_is_refused_with_a_judge(micro_data: Path, tiny_model: Path, tmp_path: Path) -> None:
    data = prepare(micro_data, tmp_path, ["unscored"], 'grader = "none"\n')
    said = train(tiny_model, data, tmp_path / "run", "--judge", "x", tasks="unscored", code=2)
    assert "--judge needs a task with a rubric, and unscored has none" in said and 'grader = "judge"' in said
    (tmp_path / "columns.toml").write_text('grader = "none"\nrubric = "x"\n')
    source = ["--source", f"more={tmp_path / 'unscored-train.jsonl'}", "--columns", f"more={tmp_path / 'columns.toml'}"]
    assert "a rubric is for a judge" in sdft("prepare", *source, "--data", str(data), code=2)


def test_a_local_judge_judges_a_run(whole: Path, tiny_model: Path, data: Path, tmp_path: Path) -> None:
    """This one never learnt the verdicts: everything is judged, and nothing can be read. What is trained does not
    change by it."""
    out = tmp_path / "run"
    train(tiny_model, data, out, "--judge", f"local:{tiny_model}", "--set", "eval_every=0", tasks="one")
    items = results.load_run(out).items(0, "one")
    assert all(item["why"].startswith("unscored: the judge replied") for item in items if item["completion"].strip())
    trained, by_endpoint = results.load_run(out).items(1, "one"), results.load_run(whole).items(1, "one")
    assert [item["completion"] for item in trained] == [item["completion"] for item in by_endpoint]
    assert (out / "done.json").is_file() and "already finished" in sdft("train", "--resume", "--out", str(out))
