"""The distribution is called sdft-cli: another project on PyPI is called sdft, and no text may install that one."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXTS = (".py", ".toml", ".md", ".sh", ".yml", ".j2")


def test_the_distribution_is_sdft_cli_and_the_command_sdft() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "sdft-cli"
    assert project["scripts"] == {"sdft": "sdft_cli.cli.app:main"}


def test_no_text_names_an_extra_of_the_other_project() -> None:
    folders = [ROOT / name for name in ("sdft_cli", "docs", "recipes", "benchmarks", "tests", "data")]
    files = [*ROOT.glob("*.*"), *(f for folder in folders for f in folder.rglob("*"))]
    texts = {f: f.read_text(encoding="utf-8") for f in files if f.suffix in TEXTS and f != Path(__file__)}
    assert len(texts) > 200
    wrong = re.compile(r"\bsdft\[|pip install '?\"?sdft\b(?!-cli)|(metadata\.)?version\(.sdft.\)")
    assert not [f"{f}: {match[0]}" for f, text in texts.items() if (match := wrong.search(text))]


def test_messages_name_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {m for f in (ROOT / "sdft_cli").rglob("*.py") for m in re.findall(r"sdft-cli\[(\w+)\]", f.read_text())}
    assert named == {"vllm", "eval", "memory", "math", "gguf"} and named <= set(extras)
