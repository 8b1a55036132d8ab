"""A GGUF file as a plain Hugging Face folder: ``python -m sdft_cli.models.gguf FILE FOLDER``, a process of its own.

`transformers` dequantises the weights and makes tokenizer and chat template from the file's metadata. The folder is
written beside its place and renamed when it is whole. Weights are kept in 32 bits up to `SMALL` parameters and in
bfloat16 beyond, which is finer than what they were quantised to.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch

from sdft_cli.config.gguf_files import REFUSED
from sdft_cli.errors import UsageError
from sdft_cli.models import weights
from sdft_cli.models.saving import save_core

#: Parameters of a model that is kept in 32 bits.
SMALL = 1_000_000_000


def convert(file: Path, folder: Path) -> None:
    """Write the model in ``file`` to ``folder``; `UsageError` where `transformers` cannot read it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise UsageError("reading GGUF files needs the package gguf", "pip install 'sdft-cli[gguf]'") from error
    place = {"gguf_file": file.name, "trust_remote_code": False}
    core = weights.explained(
        str(file), lambda: AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **place)
    )
    tokenizer = weights.explained(str(file), lambda: AutoTokenizer.from_pretrained(file.parent, **place))
    core.hf_quantizer = None  # it is an ordinary model now, and can be saved as one
    del core.config.quantization_config
    if core.num_parameters() > SMALL:
        core.to(torch.bfloat16)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as made:
        save_core(core, Path(made))
        tokenizer.save_pretrained(made)
        try:
            os.rename(made, folder)
        except OSError:  # another process was faster
            if not (folder / "config.json").is_file():
                raise
        else:
            os.mkdir(made)  # for its own removal


def main(file: str, folder: str) -> int:
    """Exit code; on `REFUSED` the reason and a hint are on stdout."""
    try:
        convert(Path(file), Path(folder))
    except UsageError as error:
        print(error.message.removeprefix(f"{file}: "), error.hint or "", sep="\n")
        return REFUSED
    except OSError as error:
        print(f"cannot be converted: {error}", "free space there, or name another folder with $SDFT_CACHE", sep="\n")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
