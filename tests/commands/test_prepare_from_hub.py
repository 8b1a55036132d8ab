"""`prepare --source hub`: the public data of the named tasks, by their ids, from a hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.fake_hub import FakeHub, card

from sdft_cli.data import hub
from sdft_cli.data.dataset import read_split
from sdft_cli.data.manifest import read_manifest
from sdft_cli.errors import UsageError
from sdft_cli.rows import hub as hub_rows
from sdft_cli.tasks import medical, science

WORDS = "north river seven lamps copper train winter paper orange signal market tower glass engine valley".split()


def question(i: int) -> str:
    return f"item {i}: {WORDS[i % 15]} {WORDS[i * i % 15]} {WORDS[i // 15 % 15]}?"


def tool_row(i: int, **more: Any) -> dict[str, Any]:
    gold = [{"Action": "listen", "Action_Input": json.dumps({"n": i})}]
    return {"prompt": question(i), "name": "Bird", "golden_answer": gold, "golden_response": None, **more}


def science_row(i: int, domain: str = "Chemistry", level: str = "L3") -> dict[str, Any]:
    choices = {"text": ["1", "2", "3", "4"], "label": ["A", "B", "C", "D"]}
    details = {"level": level, "task": "atoms", "subtask": "atoms", "source": "web"}
    row = {"question": question(i), "choices": choices, "answerKey": "ABCD"[i % 4], "type": "mcq-4-choices"}
    return {"prompt": {"default": "select"}, "answer": "", **row, "domain": domain, "details": details}


def response_row(i: int) -> dict[str, Any]:
    return {"Question": question(i), "Complex_CoT": "hm", "Response": f"It is fever {i}."}


def problem_row(i: int) -> dict[str, Any]:
    return {"Open-ended Verifiable Question": question(i), "Ground-True Answer": f"fever {i}"}


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


CALL = 'Action: listen\nAction Input: {"n": %d}'
OTHERS = [science_row(i, "Biology") for i in range(200, 205)] + [science_row(i, level="L1") for i in range(205, 210)]
REPOSITORIES = {
    "Ahren09/ToolAlpaca": {
        "data/train.jsonl": lines([tool_row(i, golden_response=[CALL % i]) for i in range(20)]),
        "data/test.jsonl": lines([tool_row(i) for i in range(100, 106)]),
    },
    "hicai-zju/SciKnowEval": {
        "README.md": card("test", "data/v2/t.jsonl", "v2"),
        "data/v2/t.jsonl": lines([*(science_row(i) for i in range(40)), *OTHERS]),
        "data/v1/old.jsonl": b"not to be read\n",
    },
    "FreedomIntelligence/medical-o1-reasoning-SFT": {
        "README.md": card("train", "sft.jsonl", "en", "apache-2.0"),
        "sft.jsonl": lines([response_row(i) for i in range(40)]),
    },
    "FreedomIntelligence/medical-o1-verifiable-problem": {
        "README.md": card("train", "problems.jsonl", licence="apache-2.0"),
        "problems.jsonl": lines([problem_row(i) for i in range(2, 60)]),
    },
}


def run(endpoint: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "sdft_cli", "prepare", *words, "--data", str(folder / "data")]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)


def test_the_three_named_tasks_come_from_the_hub(tmp_path: Path) -> None:
    with FakeHub(REPOSITORIES) as served:
        done = run(served.url, tmp_path, "--tasks", "tooluse,science,medical", "--source", "hub")
        assert done.returncode == 0, done.stderr
        assert not any("old.jsonl" in path for path in served.asked if "/resolve/" in path)
    tools, chemistry, doctors = (read_manifest(tmp_path / "data" / n) for n in ("tooluse", "science", "medical"))
    assert tools["rows"] == {"train": 19, "validation": 1, "test": 6}
    assert tools["with_demonstration"] == 19 and tools["grading"]["unwinnable"]["count"] == 0
    assert sum(chemistry["rows"].values()) == 40 and chemistry["licence"] == "MIT"
    assert "of 50 rows of SciKnowEval, the 40 on Chemistry, level L3, were taken" in chemistry["notes"]
    assert doctors["licence"] == "Apache-2.0" and doctors["with_demonstration"] == doctors["rows"]["train"]
    (note,) = [note for note in doctors["notes"] if "verifiable problems" in note]
    assert note.startswith("38 of 40 questions with a response have a gold answer") and "20 problems" in note
    rows = {split: read_split(tmp_path / "data" / "medical", split)[0] for split in doctors["rows"]}
    assert all(row.answer for split in ("validation", "test") for row in rows[split])
    asked = [row.prompt[0]["content"] for some in rows.values() for row in some]
    assert len(asked) == len(set(asked)) == 40
    text = json.dumps([tools, chemistry, doctors])
    assert str(tmp_path) not in text and "sdft-hub-" not in text
    assert [source["file"] for source in tools["sources"]] == [
        "hf:Ahren09--ToolAlpaca/test.jsonl",
        "hf:Ahren09--ToolAlpaca/train.jsonl",
    ]


@pytest.mark.slow
def test_without_the_hub_there_is_one_clear_line(tmp_path: Path) -> None:
    with FakeHub({}) as served:
        done = run(served.url, tmp_path, "--tasks", "tooluse", "--source", "hub")
    assert done.returncode == 2 and "cannot load 'Ahren09/ToolAlpaca'" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "hub"], "of no task, none has data on the hub"),
        (["--tasks", "knowledge", "--source", "hub"], "of knowledge, none has data on the hub"),
        (["--tasks", "mine", "--source", "hub"], "these have: medical, science, tooluse"),
        (["--tasks", "science", "--source", "science=x", "--source", "hub"], "none has data on the hub"),
    ],
)
def test_tasks_without_data_on_the_hub_are_refused(sdft, words: list[str], message: str) -> None:
    code, _, err = sdft("prepare", *words)
    assert code == 2 and message in err


def test_other_sources_keep_their_place() -> None:
    given = hub_rows.named(["science", "mine", "tooluse"], {"mine": [Path("rows.jsonl")]})
    assert given == {"mine": [Path("rows.jsonl")], "science": [hub_rows.OF_THE_TASK], "tooluse": [hub_rows.OF_THE_TASK]}


def test_what_a_task_names_is_what_source_takes() -> None:
    for source in (science.TASK.hub, medical.TASK.hub):
        assert source and source.licence and all(hub.parse(Path(name)) for name in source.datasets)
    with pytest.raises(UsageError):
        hub.parse(hub_rows.OF_THE_TASK)


def test_tasks_say_where_their_data_is(sdft) -> None:
    code, out, _ = sdft("tasks")
    assert code == 0 and "on the hub: hicai-zju/SciKnowEval" in out and "github.com/tangqiaoyu/ToolAlpaca" in out
    code, out, _ = sdft("tasks", "--json")
    listed = json.loads(out)
    assert listed["medical"]["hub"]["licence"] == "Apache-2.0" and listed["micro-science"]["hub"] is None
