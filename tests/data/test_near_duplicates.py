"""The near-duplicate join against a comparison of every pair, and what it must and must not take for a duplicate."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdft_cli.data.near_duplicates import LONG_PASSAGE, PASSAGE, ROWS, near_duplicates, near_matches

SHARED = Path(__file__).parents[3] / "shared" / "data"


def item_sets(texts: list[str]) -> list[set]:
    """The items of every text, straight from the definition: slow, and without hashes."""
    words = [t.split() for t in texts]
    distinct = list({tuple(w): w for w in words}.values())
    windows = Counter(x for w in distinct for x in {tuple(w[i : i + PASSAGE]) for i in range(len(w) - PASSAGE + 1)})
    return [items(w, windows) for w in words]


def items(words: list[str], windows: Counter) -> set:
    counts = [windows[tuple(words[i : i + PASSAGE])] for i in range(len(words) - PASSAGE + 1)]
    starts = {i for i, n in enumerate(counts) if n >= ROWS}
    for i in range(len(counts)):
        run = range(i, i + LONG_PASSAGE - PASSAGE + 1)
        if run.stop <= len(counts) and all(counts[j] >= 2 for j in run):
            starts |= set(run)
    shared = {i + k for i in starts for k in range(PASSAGE - 1)}
    result: set = (
        {tuple(words[i : i + 2]) for i in range(len(words) - 1) if i not in shared} if len(words) > 1 else set()
    )
    for i in sorted(shared - {i + 1 for i in shared}):
        end = next(k for k in range(i, len(words)) if k not in shared)
        result.add(("passage", *words[i : end + 1]))
    return result if len(words) > 1 else {tuple(words)}


def similar(a: set, b: set, threshold: float) -> bool:
    return len(a & b) / len(a | b) >= threshold


def every_pair(texts: list[str], threshold: float, agree=lambda a, b: True) -> list[tuple[int, int]]:
    sets, kept, pairs = item_sets(texts), [], []
    for i, items in enumerate(sets):
        first = next((k for k in kept if similar(sets[k], items, threshold) and agree(k, i)), None)
        if first is None:
            kept.append(i)
        else:
            pairs.append((first, i))
    return pairs


def every_match(reference: list[str], texts: list[str], threshold: float) -> list[tuple[int, int]]:
    sets = item_sets([*reference, *texts])
    left, right = sets[: len(reference)], sets[len(reference) :]
    firsts = [next((k for k, a in enumerate(left) if similar(a, b, threshold)), None) for b in right]
    return [(k, i) for i, k in enumerate(firsts) if k is not None]


WORDS = st.sampled_from("0 1 2 3 4".split())
TEXTS = st.lists(st.lists(WORDS, max_size=14).map(" ".join), max_size=14)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.sampled_from([0.3, 0.5, 0.6, 0.7, 0.8, 1.0]))
def test_the_join_equals_a_comparison_of_every_pair(texts, threshold):
    assert near_duplicates(texts, threshold) == every_pair(texts, threshold)
    odd = lambda a, b: (a + b) % 3 != 0  # noqa: E731
    assert near_duplicates(texts, threshold, odd) == every_pair(texts, threshold, odd)
    half = len(texts) // 2
    assert near_matches(texts[:half], texts[half:], threshold) == every_match(texts[:half], texts[half:], threshold)


@pytest.mark.parametrize("seed", range(4))
def test_the_join_equals_a_comparison_of_every_pair_of_edited_texts_after_preambles(seed):
    rng = random.Random(seed)
    draw = lambda n: [str(rng.randrange(80)) for _ in range(n)]  # noqa: E731
    preambles = [draw(rng.choice((0, 0, 12, 40, 120))) for _ in range(12)]
    texts: list[str] = []
    for _ in range(150):
        words = rng.choice(texts).split() if texts and rng.random() < 0.4 else rng.choice(preambles) + draw(25)
        for _ in range(rng.choice((0, 1, 1, 4))):
            words[rng.randrange(len(words))] = rng.choice(("new", "7"))
        texts.append(" ".join(words))
    pairs = near_duplicates(texts)
    assert pairs == every_pair(texts, 0.8)
    assert len(pairs) > 5


WEATHER = "Please tell me what the weather in the city of {} will be like on the coming {} in the early morning hours"


def test_texts_that_differ_in_case_punctuation_or_one_word_of_many_are_near():
    long = "a traveller asks how many bridges cross the wide river between the old town and its harbour to the north"
    near = [long, long.replace("a traveller", "A traveller,") + "?", long.replace("bridges", "ferries"), long + " now"]
    assert [near_duplicates([near[0], other]) for other in near[1:]] == [[(0, 1)]] * 3
    assert near_duplicates(["When did it happen?", "when did it happen"]) == [(0, 1)]
    assert near_duplicates([long, " ".join(reversed(long.split()))]) == []


def test_numbers_formulas_and_code_are_compared_as_written():
    for one, other in (("5", "-5"), ("5.5", "55"), ("c1ccccc1", "C1CCCCC1"), ("C=C", "C#C"), ("CO", "Co"), ("x+", "x")):
        assert near_duplicates([f"give the mass of {one}", f"give the mass of {other}"]) == []


def test_only_the_first_of_repeated_and_changed_texts_is_kept():
    base = (
        "how do I cancel the order that I placed yesterday evening with the wrong address on it and get a refund soon"
    )
    assert near_duplicates([base, "else", base, base + " please"]) == [(0, 2), (0, 3)]


def test_empty_texts_and_single_words():
    assert near_duplicates([]) == []
    assert near_duplicates(["", "a", "", "b", "a", "a b"]) == [(0, 2), (1, 4)]
    assert near_matches([], ["a"]) == []
    assert near_matches(["a"], []) == []


def test_texts_without_spaces_are_compared_by_characters():
    base = "二零二五年缅甸发生的强烈地震造成了多少人死亡和受伤以及多少房屋倒塌"
    assert near_duplicates([base, base + "了", "完全不同的一个问题是关于天气的吗"]) == [(0, 1)]


def test_rows_of_one_template_are_all_kept():
    days = "Monday Tuesday Friday".split()
    assert near_duplicates([WEATHER.format(city, day) for city in ("Oslo", "Rome", "Lima") for day in days]) == []
    numbers = [f"Explain, step by step and in plain words, why the number {i} is or is not prime" for i in range(500)]
    assert near_duplicates(numbers) == []


def test_a_preamble_hides_neither_differences_nor_similarity():
    preamble = " ".join(f"tool{i} takes one argument and returns a list of results." for i in range(300))
    ask = "Question: {} that were released in 2020 and have a user rating of at least four stars, please, and sort them"
    texts = [f"{preamble} {ask.format(what)}" for what in ("find me some songs", "list all films", "List all films")]
    assert near_duplicates([*texts, f"{preamble} Question: bye"]) == [(1, 2)]
    assert near_duplicates([f"{preamble} What is this?", f"{preamble} Who made that?"]) == []


def test_the_same_questions_on_several_articles_are_different():
    articles = [" ".join(f"fact{a}x{i} is known about it" for i in range(40)) for a in range(4)]
    questions = [
        f"Question: what do the first {n} lines of this article say in your own words, briefly?" for n in "234"
    ]
    assert near_duplicates([f"{a} {q}" for a in articles for q in questions]) == []


def test_ten_thousand_rows_take_seconds():
    rng = random.Random(0)
    words = [f"w{int(200 * rng.paretovariate(0.7))}" for _ in range(50_000)]
    texts = [" ".join(rng.choices(words, k=60)) for _ in range(10_000)]
    texts += [text.replace(" ", " so ", 1) for text in texts[:300]]
    start = time.process_time()
    assert len(near_duplicates(texts)) == 300
    assert time.process_time() - start < 10  # 2 s of one core on an idle machine


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data files (../shared/data) are not here")
def test_real_questions():
    tooluse = [row["prompt"] for row in json.loads((SHARED / "sdft_tooluse/eval_68.json").read_text())]
    assert near_duplicates(tooluse) == []
    lines = (SHARED / "disasters_2025/gpt-5-mini_questions.jsonl").read_text().splitlines()
    questions = [json.loads(line)["input"] for line in lines]
    pairs = near_duplicates(questions)
    assert len(pairs) == 6
    ((one, other),) = [(a, b) for a, b in pairs if questions[a] != questions[b]]
    assert questions[other] == questions[one].replace("precipitation", "precipitation events")
