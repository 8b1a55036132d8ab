"""Recipe files as text: TOML that reads back as what was written."""

import tomllib

import pytest

from sdft_cli.config.recipe_text import number_text, recipe_text, value_text


@pytest.mark.parametrize(
    "value",
    [
        *(
            "micro",
            'a "b" \\ c',
            "tab\tline\nend\x00\x7f",
            "größer 漢 🙂",
            True,
            False,
            0,
            -3,
            32,
            1.0,
            0.5,
            5e-5,
            1.5e-4,
        ),
        *(1 / 3, 1e-30, 123456.789, 1e300, ["a", "b"], [1, 2.5], []),
    ],
)
def test_values_read_back_as_they_were(value: object) -> None:
    read = tomllib.loads(f"x = {value_text(value)}")["x"]
    assert read == value and type(read) is type(value)


def test_rates_are_written_as_people_write_them() -> None:
    assert [number_text(x) for x in (5e-5, 1e-4, 0.00015, 0.01, 0.5, 1.0)] == [
        "5e-5",
        "1e-4",
        "1.5e-4",
        "0.01",
        "0.5",
        "1.0",
    ]


def test_keys_are_put_into_their_tables_each_below_its_reason() -> None:
    settings = [
        ("method", "sdft", ""),
        ("train.lr", 5e-5, "because " * 20),
        ("views.teacher", "answer", "a reason"),
        ("train.batch", 8, ""),
        ("evaluation.harness.log", "x", ""),
        ("guards.repetition", None, "cannot be written"),
    ]
    text = recipe_text(["A title.", "  sdft train FILE " + "word " * 20], settings)
    assert tomllib.loads(text) == {
        "method": "sdft",
        "train": {"lr": 5e-5, "batch": 8},
        "views": {"teacher": "answer"},
        "evaluation": {"harness": {"log": "x"}},
    }
    lines = text.splitlines()
    assert lines[0] == "# A title." and lines[1].startswith("#   sdft train FILE word")  # a command stays in one line
    assert lines[lines.index('teacher = "answer"') - 1] == "# a reason"
    assert all(len(line) <= 79 for line in lines if "sdft train" not in line)
