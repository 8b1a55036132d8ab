"""Columns by name: in a TOML file, and in flags, whose mistakes are one clear line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.rows.column_flags import column_flags, parse_pairs
from sdft_cli.rows.columns import KEYS, Columns, columns_of

PAIRS: list[tuple[str, dict[str, Any]]] = [
    ("prompt=Frage,answer=Zahl", {"prompt": "Frage", "answer": "Zahl"}),
    (" prompt = Die Frage , answer=Zahl ", {"prompt": "Die Frage", "answer": "Zahl"}),
    ('prompt="Frage, lang",answer=Zahl', {"prompt": "Frage, lang", "answer": "Zahl"}),
    ("prompt='Frage \"x\"'", {"prompt": 'Frage "x"'}),
    (r'pattern="a\"b\\d"', {"pattern": r'a"b\d'}),
    ("choices=[A, B, 'C, D']", {"choices": ["A", "B", "C, D"]}),
    ("splits.Probe=test,splits.Lehre=train", {"splits": {"Probe": "test", "Lehre": "train"}}),
    ('splits={ Probe = "test" },prompt=x', {"splits": {"Probe": "test"}, "prompt": "x"}),
    ("max_new_tokens=16,first_index=1", {"max_new_tokens": 16, "first_index": 1}),
    ("prompt=a=b", {"prompt": "a=b"}),
    ("template='{Frage}\n{Optionen}',answer=x", {"template": "{Frage}\n{Optionen}", "answer": "x"}),
    (r'template="{Frage}\n{Optionen}"', {"template": "{Frage}\n{Optionen}"}),
    ("answer=x,template={Frage}, {Optionen}?", {"template": "{Frage}, {Optionen}?", "answer": "x"}),
    ("prompt=问题,answer=答案", {"prompt": "问题", "answer": "答案"}),
]


@pytest.mark.parametrize(("text", "expected"), PAIRS, ids=[text for text, _ in PAIRS])
def test_pairs_in_a_flag(text: str, expected: dict[str, Any]) -> None:
    assert parse_pairs(text) == expected
    columns_of(expected, "--columns")


def test_a_task_may_be_left_out_where_there_is_one() -> None:
    expected = {"mine": Columns(prompt="Frage", answer="Zahl")}
    assert column_flags(["mine:prompt=Frage,answer=Zahl"], ["mine", "other"]) == expected
    assert column_flags(["prompt=Frage,answer=Zahl"], ["mine"]) == expected
    assert column_flags(["prompt=Frage", "mine:answer=Zahl"], ["mine", "mine.test"]) == expected


def test_a_file_by_itself_is_read_later() -> None:
    for flag in ("mine=c.toml", "c.toml"):
        assert column_flags([flag], ["mine"]) == {"mine": Path("c.toml")}
    assert column_flags(["other=c.toml"], ["mine"]) == {"other": Path("c.toml")}


def test_files_and_pairs_go_together(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('prompt = "Frage"\nsplits = { Probe = "test" }\n')
    expected = Columns(prompt="Frage", answer="Zahl", splits={"Probe": "test"})
    for flags in ([f"mine={file}", "answer=Zahl"], [str(file), "mine:answer=Zahl"]):
        assert column_flags(flags, ["mine"]) == {"mine": expected}


@pytest.mark.parametrize(
    ("flags", "tasks", "message"),
    [
        (["promt=Frage"], ["mine"], "unknown key in --columns: 'promt'"),
        (["mine:promt=Frage"], ["mine"], "unknown key in --columns: 'promt'"),
        (["prompt=Frage, lang"], ["mine"], "--columns: 'lang' is not KEY=COLUMN"),
        (["prompt=,answer=x"], ["mine"], "--columns: 'prompt=,answer=x' is not KEY=COLUMN"),
        (["prompt=a,prompt=b"], ["mine"], "--columns: 'prompt' is given twice"),
        (["prompt=a", "prompt=b"], ["mine"], "--columns gives 'prompt' of task 'mine' twice"),
        (["mine=c.toml", "prompt=a"], ["mine"], "no file at c.toml"),
        (["prompt=a"], ["mine", "other"], "--columns prompt=a: neither TASK=FILE.toml nor TASK:KEY=COLUMN"),
        (["mine="], ["mine"], "--columns mine=: neither TASK=FILE.toml nor TASK:KEY=COLUMN"),
        (["first_index=2"], ["mine"], "--columns: first_index = 2 is not 0 or 1"),
        (["first_index=x"], ["mine"], "--columns: first_index = 'x' is not 0 or 1"),
        (["max_new_tokens=0"], ["mine"], "--columns: max_new_tokens = 0 is not a whole number"),
        (
            ["template=List: {text}, answer=x"],
            ["mine"],
            "--columns: the template holds ', answer=', which looks like a",
        ),
        (["template=none"], ["mine"], "--columns: the template names no column"),
        (["labels=[x]"], ["mine"], "--columns: labels = ['x'] is not a list of at least two names"),
        (["grader=exakt"], ["mine"], "unknown grader 'exakt'"),
        (["splits.Probe=later"], ["mine"], "unknown split in --columns: 'later'"),
        (["prompt=[a, b]"], ["mine"], "--columns: prompt = ['a', 'b'] is not text"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_flag_is_one_clear_line(flags: list[str], tasks: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        column_flags(flags, tasks)
    assert message in error.value.message
    assert error.value.hint


def test_every_key_is_described_and_the_settings_are_kept() -> None:
    assert list(KEYS) and all(KEYS.values())
    assert set(Columns.__dataclass_fields__) - {"further"} == set(KEYS)  # those of a plug-in's grader
    given = columns_of({"prompt": "a", "choices": ["x", "y"], "first_index": 0, "grader": "exact"}, "c.toml")
    assert given.settings() == {"prompt": "a", "choices": ["x", "y"], "first_index": 0, "grader": "exact"}
    assert columns_of(given.settings(), "manifest") == given
