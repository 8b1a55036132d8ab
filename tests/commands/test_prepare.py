"""`prepare` on small files in the sources' formats, and on the real ones in ../shared/data if they are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdft_cli.commands.prepare import prepare, print_summaries
from sdft_cli.data.dataset import check_demonstrations, read_split
from sdft_cli.data.manifest import read_manifest
from sdft_cli.errors import UsageError
from sdft_cli.types import PrepareOptions

SHARED = Path(__file__).parents[3] / "shared" / "data"
ANSWER = PrepareOptions("answer")


def real(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip("../shared/data is absent")
    return SHARED / name


def write(path: Path, rows: Any) -> Path:
    """A JSON array, or JSONL for a .jsonl file; text is written unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows)
    path.write_text(lines + "\n" if path.suffix == ".jsonl" else json.dumps(rows))
    return path


def run(task: str, path: Path | list[Path], data: Path, options: PrepareOptions = ANSWER, **more) -> dict[str, Any]:
    paths = path if isinstance(path, list) else [path]
    (summary,) = prepare([task], {task: paths}, data, options, **more)
    return summary


def rows(data: Path, task: str) -> dict[str, list]:
    splits = read_manifest(data / task)["rows"]
    return {split: read_split(data / task, split)[0] for split in splits}


def questions(examples: list) -> set[str]:
    return {e.prompt[-1]["content"] for e in examples}


def assert_disjoint(splits: dict[str, list]) -> None:
    train, validation, test = (questions(splits[s]) for s in ("train", "validation", "test"))
    assert train
    assert validation
    assert test
    assert not train & validation
    assert not train & test
    assert not validation & test


# --- small sources ----------------------------------------------------------------------------------------------------

API = {"Name": "Bird Song", "Description": "Songs", "NLDocumentation": "listen: Play a song.\nParameters: {}\n"}
STEP = [["listen", '{"bird": "wren"}', ' play it\nAction: listen\nAction Input: {"bird": "wren"}'], "la la"]


def instance(i: int, **changes) -> dict[str, Any]:
    whole = {"input": f"Play song {i}\nHint: no hint", "output": "done", "intermediate_steps": [STEP]}
    return {**whole, **changes}


def evaluation_record(n: int = 3) -> dict[str, Any]:
    gold = [[{"Action": "listen", "Action_Input": f'{{"n": {i}, "bird": ""}}'}] for i in range(n)]
    return {**API, "Instructions": [f"Test song {i}" for i in range(n)], "Golden_Answers": gold}


def science_row(i: int, **changes) -> dict[str, Any]:
    whole = {
        "prompt": {"default": "select"}, "question": f"How many atoms has molecule {i}?", "type": "mcq-4-choices",
        "choices": {"text": ["1", "2", "3", "4"], "label": ["A", "B", "C", "D"]}, "answerKey": "ABCD"[i % 4],
        "domain": "Chemistry", "details": {"level": "L3", "task": "atoms"}, "answer": "",
    }  # fmt: skip
    return {**whole, **changes}


def medical_row(i: int, **changes) -> dict[str, Any]:
    whole = {
        "Question": f"What is disease {i}?", "Complex_CoT": "hm", "Response": f"It is fever {i}.",
        "Open-ended Verifiable Question": f"Name disease {i}?", "Ground-True Answer": f"fever {i}",
    }  # fmt: skip
    return {k: v for k, v in {**whole, **changes}.items() if v is not ...}


def authors_tool_row(i: int, **changes) -> dict[str, Any]:
    return {
        "prompt": f"Call tool {i}",
        "name": "Bird",
        "golden_answer": [{"Action": "a", "Action_Input": "{}"}],
        **changes,
    }


# --- tool use ---------------------------------------------------------------------------------------------------------


def test_toolalpaca_training_and_evaluation_records(tmp_path):
    source = write(tmp_path / "in" / "train_data.json", [{**API, "Instances": [instance(i) for i in range(20)]}])
    test = write(tmp_path / "in" / "eval.json", [evaluation_record()])
    summary = run("tooluse", [source, test], tmp_path, PrepareOptions())
    splits = rows(tmp_path, "tooluse")
    assert summary["rows"] == {"train": 19, "validation": 1, "test": 3}
    assert summary["with_demonstration"] == 19
    first = next(e for e in splits["train"] + splits["validation"] if e.id == "tooluse-bird-song-train-0")
    assert first.demonstration == STEP[0][2]
    assert first.prompt[0]["content"].endswith("Begin!\nQuestion: Play song 0")
    assert first.answer == [{"Action": "listen", "Action_Input": '{"bird": "wren"}'}]
    assert [e.id for e in splits["test"]] == [f"tooluse-bird-song-{i}" for i in range(3)]
    assert all(e.demonstration is None for e in splits["test"])
    assert splits["test"][1].meta["row"] == "eval.json[0].Instructions[1]"
    assert summary["licence"] == "Apache-2.0"
    assert_disjoint(splits)


def test_logs_of_steps_are_joined_by_newlines(tmp_path):
    instances = [instance(i, intermediate_steps=[STEP, STEP]) for i in range(4)]
    run("tooluse", write(tmp_path / "t.json", [{**API, "Instances": instances}]), tmp_path / "data", PrepareOptions())
    example = rows(tmp_path / "data", "tooluse")["train"][0]
    assert example.demonstration == STEP[0][2] + "\n" + STEP[0][2]
    assert len(example.answer) == 2


def test_bad_and_left_out_parts_of_toolalpaca_records(tmp_path):
    bad = [
        instance(100, intermediate_steps=[]),  # left out by design, not bad
        instance(101, intermediate_steps=[[["listen", "{}", " "], "x"]]),
        instance(102, intermediate_steps=[["listen"]]),
        instance(103, input=None),
        "not an object",
    ]
    record = {**API, "Instances": [*(instance(i) for i in range(96)), *bad]}
    summary = run("tooluse", write(tmp_path / "t.json", [record]), tmp_path / "data", PrepareOptions())
    assert [(d["where"], d["reason"]) for d in summary["dropped"]] == [
        ("t.json[0].Instances[97]", "empty demonstration"),
        ("t.json[0].Instances[98]", "steps are not [[action, input, log], observation]"),
        ("t.json[0].Instances[99]", "no prompt"),
        ("t.json[0].Instances[100]", "instance is not a JSON object"),
    ]
    assert summary["filtered"] == {"instance without a tool call": 1}


def test_placeholders_are_left_out_and_missing_gold_is_dropped(tmp_path):
    record = evaluation_record(44)
    record["Golden_Answers"][0][0]["Action_Input"] = '{"id": ${id from listen}}'
    record["Golden_Answers"][1] = []
    record["Golden_Answers"].pop()
    summary = run("tooluse", write(tmp_path / "e.json", [record]), tmp_path / "data", PrepareOptions())
    assert summary["filtered"] == {"gold arguments hold a $ placeholder": 1}
    assert [(d["where"], d["reason"]) for d in summary["dropped"]] == [
        ("e.json[0].Instructions[1]", "empty answer"),
        ("e.json[0].Instructions[43]", "no answer"),
    ]
    assert summary["with_demonstration"] == 0
    assert any("have no demonstration" in note for note in summary["notes"])


def test_authors_tool_rows_with_demonstrations(tmp_path):
    train = [authors_tool_row(i, golden_response=["Action: a", "Action Input: {}"]) for i in range(40)]
    train[5]["golden_response"] = []
    train[6]["prompt"] = 7
    test = [authors_tool_row(i) for i in range(100, 110)]
    test[0]["golden_answer"] = json.dumps(test[0]["golden_answer"])
    paths = [write(tmp_path / "train.jsonl", train), write(tmp_path / "test.json", test)]
    summary = run("tooluse", paths, tmp_path / "data", PrepareOptions())
    assert summary["rows"] == {"train": 36, "validation": 2, "test": 10}
    assert [(d["where"], d["reason"]) for d in summary["dropped"]] == [
        ("train.jsonl:6", "empty demonstration"),
        ("train.jsonl:7", "prompt is not text"),
    ]
    splits = rows(tmp_path / "data", "tooluse")
    assert splits["train"][0].demonstration == "Action: a\nAction Input: {}"
    assert splits["test"][0].answer == [{"Action": "a", "Action_Input": "{}"}]


def test_a_training_row_that_asks_a_test_question_is_refused_or_left_out(tmp_path):
    train = [authors_tool_row(i, golden_response="Action: a") for i in range(10)]
    test = [authors_tool_row(3), authors_tool_row(4, prompt=" Call  tool 4\n"), authors_tool_row(50)]
    paths = [write(tmp_path / "train.json", train), write(tmp_path / "test.json", test)]
    with pytest.raises(UsageError, match=r"2 of 10 training rows ask what a test row asks") as error:
        run("tooluse", paths, tmp_path / "data", PrepareOptions())
    assert "(train.json[3]), which asks what" in error.value.message
    assert "(test.json[0]) asks" in error.value.message
    assert "--on-overlap drop" in error.value.hint
    assert not (tmp_path / "data").exists()
    summary = run("tooluse", paths, tmp_path / "data", PrepareOptions(on_overlap="drop"))
    assert summary["filtered"] == {"asks what a test row asks": 2}
    assert summary["rows"] == {"train": 7, "validation": 1, "test": 3}
    assert summary["dropped"] == []


# --- science ----------------------------------------------------------------------------------------------------------


def test_a_science_folder_is_split_and_answers_become_demonstrations(tmp_path):
    write(tmp_path / "L3" / "a" / "atoms.jsonl", [science_row(i) for i in range(150)])
    write(tmp_path / "L3" / "b.json", [science_row(i) for i in range(150, 200)])
    write(
        tmp_path / "L3" / "fill.jsonl",
        [science_row(0, type="filling", answerKey="", choices={"text": [], "label": []})],
    )
    (tmp_path / "L3" / "README.md").write_text("not data")
    summary = run("science", tmp_path / "L3", tmp_path / "data")
    assert summary["rows"] == {"train": 150, "validation": 10, "test": 40}
    assert summary["filtered"] == {"not multiple choice": 1}
    assert any("--demonstrations answer" in note for note in summary["notes"])
    splits = rows(tmp_path / "data", "science")
    assert_disjoint(splits)
    example = splits["train"][0]
    assert example.demonstration == f"<answer>\n{example.answer}\n</answer>"
    assert [m["role"] for m in example.prompt] == ["system", "user"]
    assert example.prompt[1]["content"].endswith("?\n\nA: 1\nB: 2\nC: 3\nD: 4")
    ids = {e.id for examples in splits.values() for e in examples}
    assert {"science-atoms-1", "science-atoms-150", "science-atoms-0"} <= ids
    assert len(ids) == 200
    assert read_manifest(tmp_path / "data" / "science")["demonstrations"] == "answer"


def test_the_same_question_with_other_options_stays_in_one_split(tmp_path):
    twins = [science_row(i % 30, choices={"text": [str(i), "x", "y", "z"], "label": list("ABCD")}) for i in range(60)]
    run("science", write(tmp_path / "s.jsonl", twins), tmp_path / "data")
    stems = {s: {q.split("\n")[0] for q in questions(r)} for s, r in rows(tmp_path / "data", "science").items()}
    assert not stems["train"] & stems["test"]
    assert not stems["train"] & stems["validation"]
    assert not stems["validation"] & stems["test"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answerKey": "E"}, "answer is not among the options"),
        ({"answerKey": ""}, "empty answer"),
        ({"question": " "}, "empty prompt"),
        ({"question": ["x"]}, "prompt is not text"),
        ({"choices": {"text": ["1"], "label": list("ABCD")}}, "malformed options"),
        ({"choices": {"text": ["1", "", "3", "4"], "label": list("ABCD")}}, "empty option"),
        ({"choices": None}, "wrong field"),
    ],
)
def test_bad_science_rows(tmp_path, changes, reason):
    source = write(tmp_path / "s.jsonl", [*(science_row(i) for i in range(30)), science_row(30, **changes)])
    (dropped,) = run("science", source, tmp_path / "data")["dropped"]
    assert (dropped["where"], dropped["reason"]) == ("s.jsonl:31", reason)


def test_authors_science_rows(tmp_path):
    def turn(i: int) -> list[dict[str, str]]:
        return [{"role": "system", "content": "s"}, {"role": "user", "content": f"q{i}\n\nA: 1\nB: 2"}]

    train = [{"messages": turn(i), "output_text": "because\n<answer>\nB\n</answer>"} for i in range(20)]
    test = [{"prompt": turn(i), "answer": "A"} for i in range(20, 24)]
    paths = [write(tmp_path / "train.jsonl", train), write(tmp_path / "test.jsonl", test)]
    summary = run("science", paths, tmp_path / "data", PrepareOptions())
    assert summary["rows"] == {"train": 19, "validation": 1, "test": 4}
    example = rows(tmp_path / "data", "science")["validation"][0]
    assert (example.answer, example.demonstration) == ("B", train[0]["output_text"])


# --- medical ----------------------------------------------------------------------------------------------------------


def test_medical_records_with_both_sides_do_not_share_a_question_between_splits(tmp_path):
    source = write(tmp_path / "demo.json", [medical_row(i) for i in range(40)])
    run("medical", source, tmp_path / "data", PrepareOptions())
    splits = rows(tmp_path / "data", "medical")
    assert {s: len(r) for s, r in splits.items()} == {"train": 30, "validation": 2, "test": 8}
    numbers = {s: {q.split()[-1] for q in questions(r)} for s, r in splits.items()}
    assert not numbers["train"] & (numbers["test"] | numbers["validation"])
    assert all(q.startswith("What is") for q in questions(splits["train"]))
    assert all(q.startswith("Name") for q in questions(splits["test"]))
    assert all(e.answer.startswith("fever") for e in splits["test"])
    assert not check_demonstrations(splits["train"], ("demonstration",))


def test_medical_records_that_share_a_question_crosswise_stay_together(tmp_path):
    chain = [medical_row(i, **{"Open-ended Verifiable Question": f"What is disease {i + 1}?"}) for i in range(20)]
    apart = [medical_row(i) for i in range(100, 160)]
    run("medical", write(tmp_path / "demo.json", chain + apart), tmp_path / "data", PrepareOptions())
    assert_disjoint(rows(tmp_path / "data", "medical"))


def test_medical_training_and_evaluation_files(tmp_path):
    train = [medical_row(i, **{"Open-ended Verifiable Question": ..., "Ground-True Answer": ...}) for i in range(40)]
    test = [medical_row(i, Question=..., Response=..., Complex_CoT=...) for i in range(100, 140)]
    train[3]["Response"] = ""
    test[4]["Ground-True Answer"] = " ... "
    paths = [write(tmp_path / "sft.json", train), write(tmp_path / "eval.jsonl", test)]
    summary = run("medical", paths, tmp_path / "data", PrepareOptions())
    assert summary["rows"] == {"train": 39, "validation": 2, "test": 37}  # training rows have no gold answer
    assert [(d["where"], d["reason"]) for d in summary["dropped"]] == [
        ("sft.json[3]", "empty demonstration"),
        ("eval.jsonl:5", "answer has no words"),
    ]
    assert all(e.answer for e in rows(tmp_path / "data", "medical")["validation"])


def test_medical_rows_without_gold_answers_are_noted(tmp_path):
    train = [medical_row(i, **{"Open-ended Verifiable Question": ..., "Ground-True Answer": ...}) for i in range(40)]
    summary = run("medical", write(tmp_path / "sft.json", train), tmp_path / "data", PrepareOptions())
    assert summary["rows"] == {"train": 30, "validation": 2, "test": 8}
    assert any("no test row has a gold answer" in note for note in summary["notes"])


# --- safety -----------------------------------------------------------------------------------------------------------


def test_a_broken_line_is_listed_by_its_number(tmp_path):
    source = write(tmp_path / "s.jsonl", [*(science_row(i) for i in range(40)), '{"question": "cut'])
    summary = run("science", source, tmp_path / "data")
    assert [(d["where"], d["reason"]) for d in summary["dropped"]] == [("s.jsonl:41", "broken JSON")]
    manifest = read_manifest(tmp_path / "data" / "science")
    assert manifest["dropped"]["count"] == 1
    assert manifest["dropped"]["rows"] == summary["dropped"]
    with pytest.raises(UsageError, match=r"1 of 41 rows is bad; the first is s\.jsonl:41"):
        run("science", source, tmp_path / "other", on_bad_row="error")
    assert not (tmp_path / "other").exists()


def test_summaries_name_every_dropped_row(tmp_path, capsys):
    source = write(tmp_path / "s.jsonl", [*(science_row(i) for i in range(40)), "{", science_row(41, type="filling")])
    print_summaries([run("science", source, tmp_path / "data")])
    printed = capsys.readouterr().out
    for part in (
        "science: 30 train, 2 validation, 8 test",
        "30 train rows have a demonstration",
        "1 left out by design: not multiple choice",
        "dropped s.jsonl:41: broken JSON (",
    ):
        assert part in printed


def test_a_file_with_a_broken_first_line_is_read(tmp_path):
    for i, first in enumerate(("[1, 2", "{", "garbage", "[1, 2]")):
        source = write(tmp_path / f"s{i}.jsonl", [first, *(science_row(i) for i in range(40))])
        assert [d["where"] for d in run("science", source, tmp_path / "data")["dropped"]] == [f"s{i}.jsonl:1"]


def test_more_than_five_per_cent_bad_rows_are_refused_and_nothing_is_written(tmp_path):
    good = write(tmp_path / "good.json", [medical_row(i) for i in range(20)])
    bad = write(tmp_path / "bad.jsonl", [*(science_row(i) for i in range(37)), "{", "{"])
    sources = {"medical": [good], "science": [bad]}
    with pytest.raises(UsageError, match=r"2 of 39 rows are bad, more than 5% \(2 broken JSON\)") as error:
        prepare(["medical", "science"], sources, tmp_path / "data", ANSWER)
    assert error.value.code == 2
    assert not (tmp_path / "data").exists()
    write(bad, [*(science_row(i) for i in range(38)), "{", "{"])  # 2 of 40 are exactly 5 %
    assert len(prepare(["medical", "science"], sources, tmp_path / "data", ANSWER)) == 2


def test_rows_left_out_by_design_are_never_an_error(tmp_path):
    left_out = [science_row(i, type="filling") for i in range(100, 200)]
    source = write(tmp_path / "s.jsonl", [*(science_row(i) for i in range(10)), *left_out])
    summary = run("science", source, tmp_path / "data", on_bad_row="error")
    assert (summary["filtered"], summary["dropped"]) == ({"not multiple choice": 100}, [])


def test_preparing_again_gives_the_same_bytes_and_another_seed_another_split(tmp_path):
    source = write(tmp_path / "s.jsonl", [*(science_row(i) for i in range(60)), "{"])

    def files(name: str, seed: int) -> dict[str, bytes]:
        run("science", source, tmp_path / name, PrepareOptions("answer", seed))
        return {p.name: p.read_bytes() for p in (tmp_path / name / "science").iterdir()}

    assert files("one", 0) == files("two", 0) == files("one", 0)
    assert files("one", 0)["train.jsonl"] != files("three", 1)["train.jsonl"]
    assert str(tmp_path).encode() not in b"".join(files("one", 0).values())


def test_an_added_row_moves_few_others(tmp_path):
    def tested(n: int) -> set[str]:
        source = write(tmp_path / f"{n}.jsonl", [science_row(i) for i in range(n)])
        run("science", source, tmp_path / str(n))
        return questions(rows(tmp_path / str(n), "science")["test"])

    assert len(tested(200) - tested(201)) <= 2


def test_repeated_rows_and_files_count_once(tmp_path):
    one = write(tmp_path / "s.jsonl", [science_row(i) for i in range(40)])
    summary = run("science", [one, one], tmp_path / "data")
    assert summary["rows"] == {"train": 30, "validation": 2, "test": 8}
    assert summary["filtered"] == {"repeats another row": 40}


REFUSED = [
    ("unknown format", [{"a": 1, "b": 2}], "its fields are: a, b"),
    ("no objects", ["1", "2"], "no line of it is a JSON object"),
    ("another task's rows", [medical_row(1)], "not a format that task 'science' reads"),
    ("too few", [science_row(1)], "1 usable row leave"),
    ("nothing usable", [science_row(1, answerKey="")], "no usable row"),
]


@pytest.mark.parametrize(("lines", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_files_that_make_no_sense_are_refused(tmp_path, lines, message):
    with pytest.raises(UsageError, match=message) as error:
        run("science", write(tmp_path / "s.jsonl", lines), tmp_path / "data")
    assert error.value.hint
    assert not (tmp_path / "data").exists()


def test_a_cut_off_json_array_is_refused(tmp_path):
    source = write(tmp_path / "m.json", [medical_row(i) for i in range(5)])
    source.write_text(source.read_text()[:-20])
    with pytest.raises(UsageError, match=r"m\.json is not valid JSON"):
        run("medical", source, tmp_path / "data")


def test_wrong_usage(tmp_path):
    source = write(tmp_path / "s.jsonl", [science_row(i) for i in range(10)])

    def refused(match: str, tasks: list[str], sources: dict, options: PrepareOptions = ANSWER, **more) -> UsageError:
        with pytest.raises(UsageError, match=match) as error:
            prepare(tasks, sources, tmp_path / "data", options, **more)
        assert not (tmp_path / "data").exists()
        return error.value

    assert "did you mean 'science'" in refused("unknown task 'sience'", ["sience"], {}).hint
    hint = refused("task 'science' needs a source", ["science"], {}).hint
    assert "--source science=PATH" in hint
    assert "SciKnowEval" in hint
    refused("no source file or folder at", ["science"], {"science": [tmp_path / "absent"]})
    refused("not among --tasks", ["science"], {"science": [source], "medical": [source]})
    refused("takes no --source", ["micro-science"], {"micro-science": [source]})
    refused("'answers'", ["science"], {"science": [source]}, PrepareOptions("answers"))
    refused("'ignore'", ["science"], {"science": [source]}, on_bad_row="ignore")
    refused("no task named", [], {})
    (tmp_path / "empty").mkdir()
    refused(r"has no \.json, .* or \.xlsx file", ["science"], {"science": [tmp_path / "empty"]})


# --- the real files ---------------------------------------------------------------------------------------------------


def test_real_tool_use_prompts_equal_the_authors_prompts(tmp_path):
    raw, authors = real("toolalpaca"), real("sdft_tooluse/eval_68.json")
    summary = run("tooluse", raw, tmp_path / "raw")
    assert summary["filtered"] == {"gold arguments hold a $ placeholder": 32}
    assert summary["dropped"] == []
    assert summary["rows"] == {"train": 51, "validation": 3, "test": 14}
    splits = rows(tmp_path / "raw", "tooluse")
    expected = {r["prompt"]: r["golden_answer"] for r in json.loads(authors.read_text())}
    assert {e.prompt[0]["content"]: e.answer for examples in splits.values() for e in examples} == expected
    assert_disjoint(splits)
    run("tooluse", authors, tmp_path / "authors")
    for split, examples in rows(tmp_path / "authors", "tooluse").items():
        assert questions(examples) == questions(splits[split])
    assert splits["train"][0].demonstration == "Action: getRandomAxolotlImage\nAction Input: {}"


def test_real_science(tmp_path):
    summary = run("science", real("sciknoweval"), tmp_path)
    assert summary["rows"] == {"train": 1575, "validation": 105, "test": 420}
    assert summary["filtered"] == {"not multiple choice": 300}
    assert summary["dropped"] == []
    splits = rows(tmp_path, "science")
    assert_disjoint(splits)
    authors = [json.loads(line) for line in real("sdft_science/eval_first_100.jsonl").read_text().splitlines()]
    assert splits["test"][0].prompt[0] == authors[0]["prompt"][0]
    answers = {e.prompt[1]["content"]: e.answer for examples in splits.values() for e in examples}
    shared = [r for r in authors if r["prompt"][1]["content"] in answers]
    assert len(shared) == 53  # character for character; the others are from another release of the source
    assert all(answers[r["prompt"][1]["content"]] == r["answer"] for r in shared)


def test_real_science_with_the_authors_test_rows(tmp_path):
    summary = run("science", [real("sciknoweval"), real("sdft_science")], tmp_path)
    assert summary["filtered"] == {"not multiple choice": 300, "asks what a test row asks": 53}
    assert_disjoint(rows(tmp_path, "science"))


def test_real_medical(tmp_path):
    summary = run("medical", real("huatuo"), tmp_path, PrepareOptions())
    assert summary["rows"] == {"train": 148, "validation": 10, "test": 40}
    assert (summary["dropped"], summary["filtered"], summary["with_demonstration"]) == ([], {}, 148)
    assert_disjoint(rows(tmp_path, "medical"))
