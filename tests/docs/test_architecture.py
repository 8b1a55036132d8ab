"""docs/architecture.md shows the folders that are there, in the order that the imports keep, and a tour that exists."""

import importlib.util
import re
from types import ModuleType

import pytest
from support.pages import ROOT, read, section

PAGE = read("docs/architecture.md")
PACKAGE = ROOT / "sdft_cli"
STOPS = re.findall(
    r"^\d\. \*\*\[[^]]+\]\(\.\./([^)]+)\)\*\*(.*?)(?=^\d\. |\Z|^$)",
    section(PAGE, "A guided tour of one training step"),
    re.S | re.M,
)


@pytest.fixture(scope="module")
def house() -> ModuleType:
    """The test that holds the order of imports."""
    spec = importlib.util.spec_from_file_location("house", ROOT / "tests" / "test_house.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def captions() -> dict[str, str]:
    lines = section(PAGE, "The folders of `sdft_cli`").splitlines()
    matches = [re.fullmatch(r"    (\w+)/ +(\S.*)", line) for line in lines]
    return {match[1]: match[2] for match in matches if match}


def test_every_folder_has_a_caption_in_the_order_of_imports(house: ModuleType) -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(captions()) == folders
    assert list(captions()) == [name for name in house.ORDER if name in folders]


def test_the_limits_are_those_that_the_test_holds(house: ModuleType) -> None:
    rules = section(PAGE, "The folders of `sdft_cli`")
    for limit in (house.FILE_LINES, house.METHODS, house.FUNCTION_LINES, house.PARAMETERS):
        assert re.search(rf"\b{limit}\b", rules)
    assert all(f"`{name}`" in rules for name in (*house.MAY_BE_HEAVY, *house.NO_TORCH))


def test_the_tour_stops_at_five_files_and_names_what_is_in_them() -> None:
    assert len(STOPS) == 5
    for path, text in STOPS:
        code = (ROOT / path).read_text(encoding="utf-8")
        names = [name for name in re.findall(r"`([\w.]+)`", text) if not name.endswith(".py")]
        assert names and not [part for name in names for part in name.split(".") if part not in code], path
