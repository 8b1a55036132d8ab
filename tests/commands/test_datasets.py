"""`sdft data list`, `stats` and `show` on the command line, for people and as JSON; and the lengths of `prepare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdft_cli.data import lengths
from sdft_cli.types import Example, Prepared


@pytest.fixture
def prepared(sdft, tmp_path: Path):
    rows = [{"question": f"how much is {i} and {i * i}?", "answer": i + i * i} for i in range(20)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "town.md").write_text("It rained in town.")
    code, _, err = sdft("prepare", "--source", "sums=sums.jsonl", "--source", "knowledge=town.md", "--seed", "3")
    assert (code, err) == (0, "")
    return sdft


def test_list_names_rows_and_grader(prepared) -> None:
    _, out, _ = prepared("data", "list", "--json")
    datasets = {d["task"]: d for d in json.loads(out)["datasets"]}
    assert datasets["sums"]["rows"] == {"train": 15, "validation": 1, "test": 4}
    assert datasets["sums"]["grader"] == "number"
    assert datasets["knowledge"]["rows"] == {"corpus": 1}
    _, out, _ = prepared("data", "list")
    assert all(word in out for word in ("sums", "number", "15", "corpus", "knowledge"))
    assert "\x1b" not in out


def test_stats_in_characters_and_tokens(prepared) -> None:
    _, out, _ = prepared("data", "stats", "sums", "--model", "micro", "--json")
    (entry,) = json.loads(out)["datasets"]
    assert entry["lengths"]["model"] == "micro"
    for unit in ("characters", "tokens"):
        parts = entry["lengths"][unit]["train"]
        assert set(parts) == {"student", "teacher", "demonstration"}
        assert parts["teacher"]["p50"] > parts["student"]["p50"]
        assert all(p["p50"] <= p["p90"] <= p["p99"] <= p["max"] for p in parts.values())
    _, out, _ = prepared("data", "stats")
    assert "sums: 15 train, 1 validation, 4 test" in out
    assert "p99" in out and "teacher" in out
    assert "note: graded by 'number'" in out


def test_show_renders_both_views(prepared) -> None:
    _, out, _ = prepared("data", "show", "sums", "--row", "2", "--json")
    (row,) = json.loads(out)["rows"]
    assert (row["line"], row["split"]) == (2, "train")
    assert row["student"].startswith("[user]\nhow much is")
    assert "This is an example for a response to the question:" in row["teacher"]
    _, out, _ = prepared("data", "show", "sums", "--row", row["id"], "--model", "micro")
    assert f"=== sums train 2: {row['id']}" in out
    assert "<|im_start|>user" in out and "<|im_start|>assistant" in out
    assert f"--- gold answer: {row['answer']}" in out
    _, out, _ = prepared("data", "show", "sums", "--method", "opsd", "--split", "test", "--limit", "3", "--json")
    shown = json.loads(out)["rows"]
    assert [r["line"] for r in shown] == [1, 2, 3]
    assert all("Reference solution" in r["teacher"] for r in shown)
    _, out, _ = prepared("data", "show", "sums", "--method", "sdpo")
    assert "same batch" in out


def test_show_a_corpus(prepared) -> None:
    _, out, _ = prepared("data", "show", "knowledge")
    assert "=== knowledge corpus 1: knowledge-article-town" in out
    assert "It rained in town." in out


MISTAKES = [
    (("show", "nothing"), "no dataset at data/nothing", "sdft prepare"),
    (("show", "sums", "--row", "99"), "has no row '99'", "a line from 1 to 15"),
    (("show", "sums", "--split", "ood"), "no ood split", ""),
    (("show", "sums", "--method", "stf"), "unknown method 'stf'", "sft"),
    (("stats", "nothing"), "no dataset at data/nothing", ""),
    (("stats", "--model", "./nowhere"), "no model folder at ./nowhere", ""),
    (("list", "--data", "nowhere"), "no folder at nowhere", "sdft prepare"),
]


@pytest.mark.parametrize(("words", "says", "hint"), MISTAKES, ids=[" ".join(words) for words, _, _ in MISTAKES])
def test_a_mistake_is_one_clear_error(prepared, words: tuple[str, ...], says: str, hint: str) -> None:
    code, out, err = prepared("data", *words)
    error, *rest = err.splitlines()
    assert (code, out) == (2, "")
    assert says in error
    assert hint in "".join(rest)


PLUGIN = """
from sdft_cli.config.recipe import Views
from sdft_cli.methods.sdft import METHOD as SDFT

METHOD = SDFT.model_copy(update={"name": "mine", "views": Views(student="prompt", teacher="reference")})
"""


def test_every_command_loads_plugins_before_it_checks_names(prepared, tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(PLUGIN)
    plugin = ("--plugin", "p.py")
    assert prepared("data", "list", *plugin)[0] == 0
    _, out, _ = prepared("data", "show", "sums", "--method", "mine", *plugin, "--json")
    assert "Reference solution" in json.loads(out)["rows"][0]["teacher"]
    _, out, _ = prepared("data", "stats", "sums", "--method", "mine", *plugin)
    assert "(views of mine)" in out
    code, _, err = prepared("data", "show", "sums", "--plugin", "absent.py")
    assert code == 2 and "absent.py" in err


def test_an_older_dataset_is_refused_in_one_line(prepared, tmp_path: Path) -> None:
    manifest = tmp_path / "data" / "sums" / "manifest.json"
    manifest.write_text(json.dumps({k: v for k, v in json.loads(manifest.read_text()).items() if k != "format"}))
    for words in (("list",), ("stats",), ("show", "sums")):
        code, out, err = prepared("data", *words)
        assert (code, out) == (2, "")
        error, hint = err.splitlines()
        assert error.startswith("error: data/sums/manifest.json has no format version")
        assert hint == "hint: prepare it again with: sdft prepare --source sums=PATH"


def test_prepare_shows_and_keeps_lengths(sdft, tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"question": f"how much is {i}?", "answer": "x" * i} for i in range(1, 21)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = sdft("prepare", "--source", "a=a.jsonl", "--model", str(tiny_model))
    assert code == 0, err
    assert "student: p50" in out and "tokens" in out
    kept = json.loads((tmp_path / "data" / "a" / "manifest.json").read_text())["lengths"]
    assert kept["model"] == tiny_model.name
    assert kept["tokens"]["test"]["student"]["max"] > 10


def test_percentiles_are_by_nearest_rank() -> None:
    assert lengths.percentiles(range(1, 101)) == {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    assert lengths.percentiles([7]) == {"p50": 7, "p90": 7, "p99": 7, "max": 7}


def test_rows_without_a_demonstration_have_no_teacher_view() -> None:
    rows = [
        Example("a", [{"role": "user", "content": "why?"}]),
        Example("b", [{"role": "user", "content": "who is it?"}]),
    ]
    measured = lengths.measurer(None)(Prepared({"train": rows, "corpus": [Example("c", [], text="x")]}))
    assert measured == {
        "method": "sdft",
        "characters": {"train": {"student": {"p50": 4, "p90": 10, "p99": 10, "max": 10}}},
    }
