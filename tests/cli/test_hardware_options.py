"""``--gpus`` and ``--device-memory``: planned for, or refused in one line."""

import json
from pathlib import Path

import pytest

from sdft_cli.cli.hardware_options import bytes_of
from sdft_cli.errors import UsageError
from sdft_cli.training import available_memory


def test_amounts_of_memory() -> None:
    assert [bytes_of(text) for text in ("80GB", "80 gb", "1.5GiB", "500MB", "2MiB")] == [
        80 * 10**9, 80 * 10**9, 3 << 29, 5 * 10**8, 1 << 21,
    ]  # fmt: skip
    for wrong in ("80", "GB", "-1GB", "0GB", "80TB", "1e2GB", "80GB each"):
        with pytest.raises(UsageError, match="not an amount of memory"):
            bytes_of(wrong)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--device-memory", "80GB"], "--device-memory: training takes what memory there is"),
        (["train", "--dry-run", "--device-memory", "80"], "--device-memory 80: not an amount of memory"),
        (["probe", "--gpus", "2"], "--gpus 2: a probe runs on one device"),
        (["probe", "--device-memory", "much"], "--device-memory much: not an amount of memory"),
    ],
)
def test_what_cannot_be_honoured_is_refused(sdft, words: list[str], said: str) -> None:
    code, out, err = sdft(*words)
    assert code == 2 and not out and said in err and err.count("hint: ") == 1


def test_a_plan_for_devices_that_are_not_here(
    sdft, micro_data: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of this machine is asked, which has no GPU and no room."""
    monkeypatch.setattr(available_memory, "free_bytes", lambda _: 1)
    words = ["train", "--dry-run", "--tasks", "micro-tooluse", "--model", str(tiny_model), "--data", str(micro_data)]
    words += ["--device-memory", "24GB", "--gpus", "3", "--set", "train.batch=8"]
    code, out, err = sdft(*words, "--json")
    assert code == 0, err
    facts = json.loads(out)
    plan, cells = facts["plan"], facts["what_fits"]
    assert plan["fits"] and facts["fits"] and not plan["chosen"] and facts["disk_free_bytes"] is None
    assert (plan["gpus"], plan["device_memory_bytes"], plan["rows"], plan["micro_batches"]) == (3, 24 * 10**9, 3, 1)
    assert plan["parts"]["weights"] == 2 * plan["shards"]["parameters"]  # bf16, as on a GPU
    assert facts["parameters"] / 3 <= plan["shards"]["parameters"] < facts["parameters"] / 3 + 2000
    assert plan["traffic"]["sampling"] == facts["parameters"] * 2 * 2 // 3
    assert facts["predicted_peak_bytes"] == plan["predicted_peak_bytes"] == max(
        plan["training_peak_bytes"], plan["sampling_peak_bytes"]
    )  # fmt: skip
    assert len(cells) == 3 * 4 * 4 and all(cell["fits"] for cell in cells)
    code, out, err = sdft(*words)
    assert code == 0 and "on 3 x 24.0 GB: fits" in out and "qlora      24 GB" in out
    assert "received by each in a step" in out and "not needed: teacher.storage=half (would save" in out


def test_a_plan_needs_nothing_that_only_a_gpu_has(sdft, micro_data: Path, tiny_model: Path) -> None:
    """Neither bitsandbytes nor the device."""
    words = ["train", "--dry-run", "--tasks", "micro-tooluse", "--model", str(tiny_model), "--data", str(micro_data)]
    words += ["--device-memory", "24GB", "--set", "device=cuda:1", "--set", "optimizer=adamw8bit", "--json"]
    code, out, err = sdft(*words, "--set", "lora.rank=4", "--set", "lora.bits=4")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["parts"]["optimizer"] == 2 * facts["trained"] + facts["trained"] // 32
    assert facts["parts"]["weights"] < 2 * facts["parameters"] + 4 * facts["trained"]
    assert "train.optimizer=adamw8bit" not in facts["plan"]["saves"]  # it is given


def test_several_devices_of_this_machine_share_a_cpus_memory(
    sdft, micro_data: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(available_memory, "free_bytes", lambda _: 6 * 10**9)
    words = ["train", "--dry-run", "--tasks", "micro-tooluse", "--model", str(tiny_model), "--data", str(micro_data)]
    code, out, err = sdft(*words, "--gpus", "2", "--json")
    facts = json.loads(out)
    assert code == 0, err
    assert facts["plan"]["device_memory_bytes"] == 3 * 10**9 and "what_fits" not in facts
    assert facts["plan"]["parts"]["weights"] == 4 * facts["plan"]["shards"]["parameters"]
