"""What is the same question: spellings that a reader takes for one, and nothing that an expert keeps apart."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from sdft_cli.commands.prepare import prepare
from sdft_cli.data import words as w
from sdft_cli.errors import UsageError
from sdft_cli.rows.formats import prompt_keys
from sdft_cli.types import PrepareOptions

ASKED = "What happens to the pressure in a closed vessel if we heat its content, and why?"


def mixed(text: str) -> str:
    return "".join(c.upper() if i % 2 else c.lower() for i, c in enumerate(text))


def wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def bold(text: str) -> str:
    return "".join(unicodedata.lookup(f"MATHEMATICAL BOLD SMALL {c.upper()}") if "a" <= c <= "z" else c for c in text)


SAME = {
    "capitals": ASKED.upper(),
    "small letters": ASKED.lower(),
    "capitalised words": ASKED.title(),
    "swapped case": ASKED.swapcase(),
    "alternating case": mixed(ASKED),
    "zero-width spaces": "\u200b".join(ASKED.replace(" ", "\0")).replace("\u200b\0\u200b", " "),
    "soft hyphens": ASKED.replace("pressure", "pres\u00adsure").replace("content", "con\u00adtent"),
    "joiners": ASKED.replace("e", "e\u200d"),
    "bidirectional marks": f"\u202e{ASKED}\u202c",
    "a byte-order mark": "\ufeff" + ASKED,
    "variation selectors": ASKED.replace("t", "t\ufe0f"),
    "control characters": ASKED.replace("p", "p\x08"),
    "Cyrillic letters": ASKED.translate(str.maketrans("aeopcxyi", "аеорсхуі")),
    "Greek capitals": ASKED.upper().translate(str.maketrans("AEHIOPT", "ΑΕΗΙΟΡΤ")),
    "a Greek letter in words": ASKED.replace("vessel", "νessel").replace("content", "cοntent"),
    "full width": wide(ASKED),
    "bold letters": bold(ASKED),
    "no-break spaces": ASKED.replace(" ", "\u00a0"),
    "other quotes and dots": ASKED.replace("vessel", "“vessel”").replace("?", "…?"),
}


@pytest.mark.parametrize("case", SAME)
def test_spellings_of_one_question(case: str) -> None:
    assert w.words(SAME[case]) == w.words(ASKED)
    assert set(prompt_keys(SAME[case])) & set(prompt_keys(ASKED))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("what is the DNA of a cell", "What is the dna of a cell?"),
        ("it’s 5 − 3", "it's 5 - 3"),
        ("the ﬁrst oﬃce", "the first office"),
        ("cafe\u0301 crème", "café crème"),
        ("Кто это?", "КТО ЭТО"),
        ("10–20 km", "10-20 km"),
    ],
)
def test_other_pairs_that_are_one(one: str, other: str) -> None:
    assert w.words(one) == w.words(other)


DIFFERENT = [
    ("x-2", "x+2"), ("x²", "x2"), ("2⁵", "25"), ("½ l", "12 l"),
    ("H₂O", "H2O"), ("n! here", "n here"), ("y' = y", "y = y"),
    ("C++ code", "C# code"), ("CO gas", "Co gas"), ("5 mPa", "5 MPa"), ("5 mW", "5 MW"), ("event A", "event a"),
    ("c1ccccc1", "C1CCCCC1"), ("print(Foo)", "print(foo)"), ("getName twice", "getname twice"),
    ("for α = 1", "for a = 1"),
    ("αx + 1", "ax + 1"), ("ρ of v", "ν of v"), ("a < b", "a > b"), ("1.5", "15"), ("café", "cafe"), ("रोम", "राम"),
    ("AaBb x aabb", "AABB x aabb"), ("Δx", "x"), ("3 × 4", "3 x 4"), ("-5", "5"), ("US tax", "us tax"), ("∀x", "∃x"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_questions_that_stay_different(one: str, other: str) -> None:
    assert w.words(one) != w.words(other)
    for frame in ("Find {}.", "What is {} worth, if anything?"):
        assert not set(prompt_keys(frame.format(one))) & set(prompt_keys(frame.format(other)))


def test_look_alikes_are_those_of_unicodes_table() -> None:
    confusables = pytest.importorskip("confusable_homoglyphs.confusables").confusables_data
    for code, plain in w._LOOK_ALIKES.items():
        alike = {other["c"] for other in confusables[chr(code)]}
        alike |= {"I"} if "l" in alike else set()  # the table has one class for both
        assert chr(plain) in alike, (chr(code), chr(plain), alike)


def test_text_in_other_scripts_is_told_apart_and_ours_is_folded_once() -> None:
    for text in (
        "Где находится столица?",
        "法国的首都是哪里？",
        "ما هي عاصمة فرنسا؟",
        "फ्रांस की राजधानी क्या है?",
        "Ποια είναι η πρωτεύουσα;",
    ):
        assert len(w.words(text)) > 2
        assert w.words(w.folded(text)) == w.words(text)


@pytest.mark.parametrize("case", SAME)
def test_a_leak_from_test_to_train_in_another_spelling_is_found(case: str, tmp_path: Path) -> None:
    more = [
        f"How many {thing} fit in {i} of the {i + 3} boxes?" for i, thing in enumerate("apples pens cups rings".split())
    ]
    for name, prompts in (("train", [SAME[case], *more]), ("test", [ASKED])):
        rows = [{"prompt": prompt, "completion": "so"} for prompt in prompts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match="1 of 5 training rows asks what a test row asks"):
        prepare(["mine"], {"mine": [tmp_path]}, tmp_path / "data", PrepareOptions())
