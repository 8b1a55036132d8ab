"""The harness's own command line on the local files, with task files written here: what `sdft` must agree with.

`sdft_cli` decides no prompt, split or score here. It only provides two things that the harness lacks offline: the
sentence splitter's data (``NLTK_DATA``), and the sandbox that HumanEval's completions run in. Run as a script, this is
the command line ``lm-eval`` with the language detector seeded.
"""

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "prior"
#: Our benchmark, the task's name here, and the metric's key in the harness's results.
TASKS = {
    "hellaswag": ("ref_hellaswag", "acc,none"),
    "truthfulqa": ("ref_truthfulqa", "acc,none"),
    "mmlu": ("ref_mmlu", "acc,none"),
    "ifeval": ("ref_ifeval", "inst_level_loose_acc,none"),
    "winogrande": ("ref_winogrande", "acc,none"),
    "humaneval": ("ref_humaneval", "pass@1,create_test"),
}
_ROWS = "dataset_path: json\ndataset_name: null\ntraining_split: null\ndataset_kwargs:\n  data_files:\n"
_HUMANEVAL = """\
task: ref_humaneval
unsafe_code: true
output_type: generate_until
test_split: test
doc_to_text: "{{prompt}}"
doc_to_target: "{{test}}\\ncheck({{entry_point}})"
metric_list:
  - {metric: !function utils.pass_at_k, aggregation: mean, higher_is_better: true}
generation_kwargs: {until: ["\\nclass", "\\ndef", "\\n#", "\\nif", "\\nprint"], max_gen_toks: 1024, do_sample: false}
num_fewshot: 0
filter_list:
  - {name: create_test, filter: [{function: custom, filter_fn: !function utils.build_predictions}]}
"""
_UTILS = """\
from sdft_cli.sandbox.programs import run

def build_predictions(resps, docs):
    return [[doc["prompt"] + r for r in resp] for resp, doc in zip(resps, docs)]

def pass_at_k(references, predictions):
    return {"pass@1": float(run(predictions[0][0] + chr(10) + references[0]).passed)}
"""


def write_tasks(folder: Path) -> None:
    """The six benchmarks' task files, and their rows as JSON lines in the hub's columns."""
    import lm_eval.tasks

    home = Path(lm_eval.tasks.__file__).parent
    rows = {name: _lines(SHARED / name / file) for name, file in FILES.items()}
    rows["hellaswag"] = [{**row, "label": str(row["label"])} for row in rows["hellaswag"]]
    truth = json.loads((SHARED / "truthfulqa" / "mc_task.json").read_text())
    rows["truthfulqa"] = [{"question": row["question"], **{k: _pairs(row[k]) for k in PAIRS}} for row in truth]
    above = {
        "hellaswag": ("hellaswag/hellaswag.yaml", "validation"),
        "truthfulqa": ("truthfulqa/truthfulqa_mc1.yaml", "validation"),
        "ifeval": ("ifeval/ifeval.yaml", "train"),
        "winogrande": ("winogrande/default.yaml", "validation"),
    }
    for name, (file, split) in above.items():
        data = _write(folder / f"{name}.jsonl", rows[name])
        text = f"include: {home / file}\ntask: ref_{name}\n{_ROWS}    {split}: {data}\n"
        (folder / f"ref_{name}.yaml").write_text(text)
    data = _write(folder / "humaneval.jsonl", rows["humaneval"])
    (folder / "ref_humaneval.yaml").write_text(f"{_HUMANEVAL}{_ROWS}    test: {data}\n")
    (folder / "utils.py").write_text(_UTILS)
    _write_mmlu(folder, home)


PAIRS = ("mc1_targets", "mc2_targets")
FILES = {
    "hellaswag": "hellaswag_val_1000.jsonl",
    "ifeval": "input_data.jsonl",
    "winogrande": "dev.jsonl",
    "humaneval": "HumanEval.jsonl.gz",
}


def _write_mmlu(folder: Path, home: Path) -> None:
    names = []
    for test in sorted((SHARED / "mmlu" / "test").glob("*.csv")):
        subject = test.name.removesuffix("_test.csv")
        names.append(f"ref_mmlu_{subject}")
        files = {split: SHARED / "mmlu" / split / f"{subject}_{split}.csv" for split in ("dev", "test")}
        data = {split: _write(folder / f"{subject}_{split}.jsonl", _questions(path)) for split, path in files.items()}
        splits = "".join(f"    {split}: {path}\n" for split, path in data.items())
        above = home / "mmlu" / "default" / f"mmlu_{subject}.yaml"
        (folder / f"{names[-1]}.yaml").write_text(f"include: {above}\ntask: {names[-1]}\ntag: null\n{_ROWS}{splits}")
    mean = "aggregate_metric_list: [{metric: acc, weight_by_size: true}]"
    (folder / "ref_mmlu.yaml").write_text(f"group: ref_mmlu\ntask: {json.dumps(names)}\n{mean}\n")


def _questions(path: Path) -> list[dict]:
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    choices = [[row[f"choice{i}"] for i in range(4)] for row in rows]
    return [
        {"question": r["question"], "choices": c, "answer": int(r["answer"])}
        for r, c in zip(rows, choices, strict=True)
    ]


def _pairs(targets: dict[str, int]) -> dict[str, list]:
    return {"choices": list(targets), "labels": list(targets.values())}


def _lines(path: Path) -> list[dict]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command_line(model: Path, tasks: list[str], folder: Path, out: Path, limit: int, batch: int, *more: str) -> None:
    """Run ``lm-eval`` on task files in ``folder``, with its result files below ``out``."""
    from sdft_cli.harness.ifeval import SENTENCES

    words = ["run", "--model", "hf", "--model_args", f"pretrained={model}", "--device", "cpu", "--tasks", *tasks]
    words += ["--include_path", str(folder), "--output_path", str(out), "--log_samples", "--confirm_run_unsafe_code"]
    words += ["--limit", str(limit), "--batch_size", str(batch), *more]
    env = {**os.environ, "NLTK_DATA": str(SENTENCES), "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run([sys.executable, __file__, *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def read_results(out: Path) -> tuple[dict, dict[str, list[dict]]]:
    """The results by task or group, and the logged samples by task, of all result files below ``out``."""
    results, samples = {}, {}
    for path in sorted(out.rglob("results_*.json")):
        results |= json.loads(path.read_text())["results"]
    for path in sorted(out.rglob("samples_*.jsonl")):
        task = path.name.removeprefix("samples_").rpartition("_")[0]
        samples[task] = sorted((json.loads(x) for x in path.read_text().splitlines()), key=lambda row: row["doc_id"])
    return results, samples


if __name__ == "__main__":
    import langdetect
    from lm_eval.__main__ import cli_evaluate

    langdetect.DetectorFactory.seed = 0
    cli_evaluate()
