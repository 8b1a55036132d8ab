"""A folder for ``--benchmarks`` with a few rows of our own in each of the six upstream formats."""

import csv
import gzip
import json
from pathlib import Path

HELLASWAG = [
    {
        "ind": i,
        "activity_label": "Baking bread",
        "ctx_a": f"A woman takes {n} loaves out of the oven.",
        "ctx_b": "she",
        "ctx": f"A woman takes {n} loaves out of the oven. she",
        "endings": ["lets them cool on a rack.", "swims away [laughs] in them.", "paints the sky.", "sings to a car."],
        "label": i % 4,
    }
    for i, n in enumerate(("two", "three", "four", "five"))
]
TRUTH = [
    {
        "question": f"How many legs does {animal} have?",
        "mc1_targets": {f"{legs} legs.": 1, "No legs.": 0, "A hundred legs.": 0},
        "mc2_targets": {f"{legs} legs.": 1, "No legs.": 0},
    }
    for animal, legs in (("a spider", "Eight"), ("a dog", "Four"), ("an ant", "Six"))
]
WINOGRANDE = [
    {
        "qID": f"w{i}",
        "sentence": f"The {a} did not fit into the {b} because the _ was too big.",
        "option1": a,
        "option2": b,
    }
    for i, (a, b) in enumerate((("trophy", "case"), ("ball", "bag"), ("book", "box")))
]
IFEVAL = [
    {
        "key": 1,
        "prompt": "Write two sentences without a comma, in English.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_sentences"],
        "kwargs": [{}, {"relation": "at least", "num_sentences": 2}],
    },
    {
        "key": 2,
        "prompt": "Write in lowercase only.",
        "instruction_id_list": ["change_case:english_lowercase"],
        "kwargs": [{}],
    },
    {"key": 3, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
]
HUMANEVAL = [
    {
        "task_id": f"HumanEval/{i}",
        "prompt": f'def add{i}(a, b):\n    """Add a, b and {i}."""\n',
        "canonical_solution": f"    return a + b + {i}\n",
        "test": f"def check(candidate):\n    assert candidate(1, 2) == {3 + i}\n",
        "entry_point": f"add{i}",
    }
    for i in range(3)
]
#: Questions of two of MMLU's subjects: (question, four choices, the right one's number).
MMLU = {
    "anatomy": [(f"Which is a bone? ({i})", ("femur", "liver", "skin", "hair"), 0) for i in range(3)],
    "astronomy": [(f"Which is a planet? ({i})", ("Sirius", "Mars", "the Moon", "Vega"), 1) for i in range(2)],
}


def write(folder: Path, letters: bool = False) -> Path:
    """All six. ``letters``: MMLU as its authors publish it, without a header and with letters as answers."""
    lines(folder / "hellaswag" / "hellaswag_val.jsonl", HELLASWAG)
    lines(folder / "ifeval" / "input_data.jsonl", IFEVAL)
    lines(folder / "winogrande" / "dev.jsonl", WINOGRANDE)
    (folder / "winogrande" / "dev-labels.lst").write_text("1\n1\n1\n")
    (folder / "truthfulqa").mkdir()
    (folder / "truthfulqa" / "mc_task.json").write_text(json.dumps(TRUTH))
    (folder / "humaneval").mkdir()
    with gzip.open(folder / "humaneval" / "HumanEval.jsonl.gz", "wt") as f:
        f.writelines(json.dumps(row) + "\n" for row in HUMANEVAL)
    for split in ("dev", "test"):
        (folder / "mmlu" / split).mkdir(parents=True)
        for subject, questions in MMLU.items():
            with (folder / "mmlu" / split / f"{subject}_{split}.csv").open("w", newline="") as f:
                table = csv.writer(f)
                if not letters:
                    table.writerow(["question", "choice0", "choice1", "choice2", "choice3", "answer"])
                table.writerows([q, *choices, "ABCD"[a] if letters else a] for q, choices, a in questions)
    return folder


def lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
