"""``sweep.json``: read as it was written, or refused in one line."""

import json
from pathlib import Path

import pytest

from sdft_cli.errors import UsageError
from sdft_cli.runs import sweeps

ARGUMENTS = {"file": None, "flags": {}, "sets": [], "plugins": [], "grid": ["lr=1,2"], "seeds": [0], "all_seeds": False}
SPEC = {"arguments": ARGUMENTS, "grid": {"sft": {"train.lr": [1, 2]}}, "base": {}, "rule": "best"}


def test_a_spec_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert sweeps.read_spec(tmp_path) is None
    sweeps.write(tmp_path, SPEC)
    assert sweeps.read_spec(tmp_path) == SPEC


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arguments": {**ARGUMENTS, "seeds": []}}, "arguments.seeds: List should have at least 1 item"),
        ({"arguments": {**ARGUMENTS, "seeds": ["0"]}}, "arguments.seeds.0: Input should be a valid integer"),
        ({"arguments": {}}, "arguments.file: Field required"),
        ({"grid": {"sft": {"train.lr": 1}}}, "grid.sft.train.lr: Input should be a valid array"),
        ({"rule": None}, "rule: Input should be a valid string"),
    ],
)
def test_a_broken_spec_is_one_line(changes: dict, says: str, tmp_path: Path, sdft) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps({**SPEC, **changes}))
    with pytest.raises(UsageError, match=f"sweep.json: {says}"):
        sweeps.read_spec(tmp_path)
    code, out, err = sdft("sweep", "--resume", "--out", str(tmp_path))
    assert code == 2 and not out and says in err and len(err.splitlines()) == 2
