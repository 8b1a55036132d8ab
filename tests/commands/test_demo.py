"""`sdft demo --quick` on the shipped base model: the shape of results.json, the report page, and a second run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sdft_cli.config.model_locations import EMBEDDED

TASKS = ["micro-tooluse", "micro-science", "micro-medical"]
pytestmark = pytest.mark.timeout(600)  # a demo takes 20 seconds, and minutes on an old or busy processor


def demo(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "sdft_cli", "demo", "--quick", "--out", str(out), "--json", *more]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=580)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    done = demo(folder, "--world", "3")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "results.json").read_text())
    return folder


def test_results_have_the_promised_shape(out: Path) -> None:
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"methods", "n", "intervals", "seed", "world", "seconds"} and results["world"] == 3
    for method in ("sdft", "sft"):
        record = results["methods"][method]
        assert record["tasks"] == TASKS
        assert [len(row) for row in record["matrix"]] == [3] * 4 and len(record["prior"]) == 4
        assert set(record["metrics"]) == {
            "average_accuracy", "backward_transfer", "forward_transfer", "forgetting", "prior_change",
        }  # fmt: skip
        assert all(isinstance(v, float) for v in record["metrics"].values())
        assert record["metrics"]["average_accuracy"] == pytest.approx(sum(record["matrix"][3]) / 3)
        assert record["metrics"]["prior_change"] == pytest.approx(record["prior"][3] - record["prior"][0])
    assert results["methods"]["sdft"]["matrix"][0] == results["methods"]["sft"]["matrix"][0]  # one base
    assert (out / "report.html").stat().st_size > 50_000


def test_a_finished_demo_is_not_run_again_and_other_settings_are_refused(out: Path) -> None:
    before = (out / "sdft" / "metrics.jsonl").read_bytes()
    assert demo(out, "--world", "3").returncode == 0
    assert (out / "sdft" / "metrics.jsonl").read_bytes() == before
    other = demo(out, "--world", "4")
    assert other.returncode == 2 and "other settings" in other.stderr


def test_the_shipped_base_is_an_ordinary_folder_of_its_own_recipe() -> None:
    files = {p.name: p.stat().st_size for p in EMBEDDED.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "sdft.toml", "pretraining.json"} <= set(files)
    assert sum(files.values()) < 20e6
    config = json.loads((EMBEDDED / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"] and not config["tie_word_embeddings"]
    assert config["hidden_size"] // config["num_attention_heads"] >= 32
