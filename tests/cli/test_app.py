"""The command line, in process: a mistake is one line with a hint and exit code 2, before a model loads."""

import json
from pathlib import Path

import pytest

MISTAKES = [
    (["train", "--tasks", "micro-tooluse,nothing"], "unknown task 'nothing'", "micro-tooluse"),
    (["train", "--tasks", "micro-tooluse", "--method", "sdtf"], "unknown method 'sdtf'", "did you mean 'sdft'"),
    (["train", "--tasks", "micro-tooluse", "--suite", "nano"], "unknown suite 'nano'", "micro"),
    (["train", "--tasks", "micro-tooluse", "--set", "learning=1"], "unknown key 'learning'", ""),
    (["train", "--tasks", "micro-tooluse", "--model", "./nowhere"], "no model folder at ./nowhere", "hub id"),
    (["train", "--tasks", "micro-tooluse", "--on-bad-row", "keep"], "--on-bad-row", "drop"),
    (["train", "--tasks", ","], "--tasks names nothing", "--tasks"),
    (["train", "nowhere.toml"], "no recipe at nowhere.toml", ""),
    (["train", "--tasks", "micro-tooluse"], "data/micro-tooluse", "sdft prepare"),
    (["train", "--resume", "--tasks", "micro-tooluse"], "--resume needs to know which run", "--out"),
    (["train", "--resume", "--out", "nowhere"], "nowhere is not a run", "leave out --resume"),
    (["train", "--continue", "nowhere", "--tasks", "micro-tooluse"], "nowhere is not a run", ""),
    (["train", "--continue", "nowhere"], "--continue needs the tasks to add", "--tasks"),
    (["train", "--continue", "nowhere", "--resume"], "--resume and --continue exclude each other", "unfinished"),
    (["train", "--continue", "nowhere", "--tasks", "a", "--set", "lr=1"], "nowhere is not a run", ""),
    (["train", "--tasks", "micro-tooluse", "--set", "views.teacher=ghost"], "unknown view 'ghost'", "demonstration"),
    (["train", "--tasks", "micro-tooluse", "--set", "sampler.temperature=0.5"], "importance ratios", "importance_cap"),
    (["train", "--tasks", "micro-tooluse", "--plugin", "mine.py"], "no plug-in file at mine.py", ".py"),
    (["probe", "--tasks", "micro-tooluse"], "data/micro-tooluse", "sdft prepare"),
    (["probe", "--tasks", "micro-tooluse", "--method", "cpt"], "no prompts to probe", "--dry-run"),
    (["sweep"], "no grid", "--grid lr="),
    (["sweep", "--grid", "learning=1,2"], "unknown key 'learning'", ""),
    (["sweep", "--grid", "lr"], "--grid lr: no '='", "--grid"),
    (["sweep", "--grid", "lr="], "no value", "between commas"),
    (["sweep", "--grid", "lr=1e-4,-1"], "train.lr", ""),
    (["sweep", "--grid", "method=sdft,stf"], "unknown method 'stf'", "did you mean 'sft'"),
    (["sweep", "--grid", "seed=0,1"], "seed cannot be in a grid", "--seeds"),
    (["sweep", "--grid", "lr=1e-4,1e-3", "--seeds", "a"], "--seeds a: not whole numbers", "0,1,2"),
    (["sweep", "--grid", "lr=1e-4,1e-3", "--set", "eval_every=0"], "nothing to choose by", "train.eval_every"),
    (["sweep", "--grid", "lr=1e-4,1e-3"], "data/micro-tooluse", "sdft prepare"),
    (["sweep", "--resume", "--out", "nowhere"], "--resume needs a sweep's folder", "--out"),
    (["prepare", "--tasks", "tooluse"], "needs a source", "--source tooluse=PATH"),
    (["prepare", "--source", "tooluse"], "not of the form TASK=PATH", "--source"),
    (["prepare", "--tasks", "science", "--source", "science=nowhere.jsonl"], "nowhere.jsonl", ""),
    (["eval", "./nowhere"], "no model folder at ./nowhere", ""),
    (["eval", "--suite", "prior-art"], "unknown suite", "micro"),
    (["eval", "micro", "--suite", "new"], "no task is named", "--tasks"),
    (["report", "nowhere"], "nowhere", "sdft train"),
    (["report"], "no run in runs", "sdft train"),
    (["demo", "--methods", "sdft,stf"], "unknown method 'stf'", "did you mean 'sft'"),
    (["demo", "--methods", ","], "--methods names nothing", "--methods a,b,c"),
]


@pytest.mark.parametrize(("words", "says", "hint"), MISTAKES, ids=[" ".join(w) for w, _, _ in MISTAKES])
def test_mistakes_are_one_line_and_a_hint(sdft, words: list[str], says: str, hint: str, tmp_path: Path) -> None:
    code, out, err = sdft(*words)
    assert code == 2 and out == ""
    lines = [line for line in err.splitlines() if line.startswith(("error:", "hint:"))]
    assert len(lines) in (1, 2) and says in lines[0] and "Traceback" not in err
    assert hint in lines[-1]
    assert not (tmp_path / "runs").exists() and not list(tmp_path.rglob("*.jsonl"))


def test_unknown_flags_exit_2(sdft) -> None:
    assert sdft("train", "--taks", "a")[0] == 2


def test_defaults_are_reported(sdft) -> None:
    assert sdft("prepare")[0] == 0
    code, out, err = sdft("train", "--dry-run", "--json")
    assert code == 0 and "embedded micro model" in err and "micro-tooluse,micro-science,micro-medical" in err
    facts = json.loads(out)
    assert [s["task"] for s in facts["stages"]] == ["micro-tooluse", "micro-science", "micro-medical"]
    assert facts["parameters"] > 1e6 and facts["stages"][0]["steps_per_epoch"] == 15


def test_dry_run_shows_both_views(sdft) -> None:
    sdft("prepare", "--tasks", "micro-tooluse")
    code, out, _ = sdft("train", "--tasks", "micro-tooluse", "--dry-run")
    assert code == 0
    assert "student sees (prompt)" in out and "teacher sees (demonstration)" in out
    assert "This is an example for a response to the question:" in out and "<|im_start|>assistant" in out
    assert "memory: predicted peak" in out and "disk: about" in out


def test_methods_and_tasks_are_listed(sdft) -> None:
    code, out, _ = sdft("methods", "--json")
    assert code == 0 and {"sdft", "sft"} <= set(json.loads(out))
    code, out, _ = sdft("tasks")
    assert code == 0 and "micro-almanac" in out and "source: none" in out and "ToolAlpaca" in out
    tasks = json.loads(sdft("tasks", "--json")[1])
    assert tasks["tooluse"]["needs_source"] and "ToolAlpaca" in tasks["tooluse"]["source_hint"]
    assert not tasks["micro-tooluse"]["needs_source"] and tasks["micro-tooluse"]["suite"] == "new"
    graders = json.loads(sdft("graders", "--json")[1])
    assert graders["sql"]["columns"] == ["database", "schema", "dialect"] and graders["rouge"]["graded"]
    out = sdft("graders")[1]
    assert all(f"\n{name} " in f"\n{out}" and each["flaws"] in out for name, each in graders.items())
    assert sdft("--version")[1].startswith("sdft ")
