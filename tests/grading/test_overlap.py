"""rouge, f1 and edit against rouge-score, SQuAD's own script and the textbook's table; scripts without spaces."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sdft_cli.grading.named_rules import grader
from sdft_cli.grading.tokens import tokens

WORDS = ["the", "cat", "Cat's", "sat", "on", "a", "mat", "3.5", "U.S.", "don't", "well-known", "_x_", "!?", "é", "An"]
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def squad_normalized(text: str) -> list[str]:
    """As in SQuAD's evaluation script, version 1.1: lower, remove punctuation, articles, extra white space."""
    text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad_f1(prediction: str, truth: str) -> float:
    ours, theirs = squad_normalized(prediction), squad_normalized(truth)
    same = sum((Counter(ours) & Counter(theirs)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(ours), same / len(theirs)
    return 2 * precision * recall / (precision + recall)


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@settings(max_examples=100, deadline=None)
@given(texts, texts)
@example("", "the cat")
def test_f1_is_squads(completion, gold):
    score = grader("f1")(completion, gold)
    if squad_normalized(gold):
        assert score.value == pytest.approx(squad_f1(completion, gold))
    else:
        assert score.value is None and score.why.startswith("unscored: ")


@settings(max_examples=100, deadline=None)
@given(texts.filter(str.isascii), texts.filter(str.isascii))
def test_rouge_is_that_of_rouge_score(completion, gold):
    from rouge_score.rouge_scorer import RougeScorer

    score = grader("rouge")(completion, gold)
    if re.search("[a-z0-9]", gold.lower()):
        theirs = RougeScorer(["rougeL"]).score(gold, completion)["rougeL"].fmeasure
        assert score.value == pytest.approx(theirs)
    else:
        assert score.value is None


@settings(max_examples=100, deadline=None)
@given(st.text("abé 北", max_size=9), st.text("abé 北", max_size=9))
def test_edit_is_one_minus_the_share_of_edits(completion, gold):
    score = grader("edit")(completion, gold)
    a, b = completion.strip(), gold.strip()
    assert score.value == (pytest.approx(1 - levenshtein(a, b) / max(len(a), len(b))) if b else None)


def test_scripts_without_spaces_are_read_character_by_character():
    assert tokens("答案是北京。") == ["答", "案", "是", "北", "京"]
    assert tokens("ラーメン2杯") == ["ラ", "ー", "メ", "ン", "2", "杯"]
    assert tokens("สวัสดี") == ["ส", "วั", "ส", "ดี"]  # vowels above a consonant stay with it
    assert tokens("रोम में है") == ["रोम", "में", "है"] and tokens("한국어 단어") == ["한국어", "단어"]
    assert tokens("ＡＢＣ１２ Größe") == ["abc12", "grösse"]
    assert grader("rouge")("答案是北京。", "北京").value == pytest.approx(2 * 2 / (5 + 2))
    assert grader("f1")("北京市", "北京").value == pytest.approx(4 / 5)
    assert grader("rouge")("रोम", "राम").value == 0 and grader("rouge")("naïve", "naive").value == 0


@pytest.mark.parametrize("name", ["rouge", "f1", "edit"])
def test_every_gold_answer_wins_and_the_best_of_several_counts(name):
    rule = grader(name)
    for gold in ("The cat sat.", "北京", "e\u0301te", "The answer is 4, I think."):
        assert rule(gold, gold).value == 1
        assert rule(f"<think>no</think>{gold}", f"<think>well</think>{gold}").value == 1
        assert rule(gold, ["something else", gold]).value == 1
    assert rule("<think>The cat sat.", "The cat sat.").value == 0  # cut off while thinking
    assert rule("\u00e9te", "e\u0301te").value == 1
    assert rule("x", "").value is None and rule.graded


def test_f1_reads_a_marked_answer_or_everything():
    long = "The tower was built in 1889, as all know. The answer is Gustave Eiffel."
    assert grader("f1")(long, "Gustave Eiffel").value == 1
    assert 0 < grader("f1")("It was Gustave Eiffel", "Gustave Eiffel").value < 1


def test_long_texts_take_no_time():
    long = " ".join(WORDS * 1000)
    assert grader("rouge")(long, long).value == grader("f1")(long, long).value == grader("edit")(long, long).value == 1
