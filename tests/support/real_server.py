"""Real inference servers on loopback, and a small model that learns given replies by heart.

`transformers serve` is among the development dependencies. vLLM's CPU build needs an environment of its own
(`make test-vllm` makes one); from any other environment, name its Python in $VLLM_PYTHON.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVERS = ("transformers", "vllm")


@contextmanager
def serving(server: str, model: Path, log: Path, *options: str, seconds: float = 300.0) -> Iterator[str]:
    """The address of an endpoint that serves ``model``; skips the test if the server is not installed.

    ``options`` are vLLM's, which is started so that its weights can be changed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **settings}
    with log.open("w") as out:
        command = [*_command(server, model, port), *options]
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", seconds, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _command(server: str, model: Path, port: int) -> list[str]:
    if server == "transformers":
        if not all(map(importlib.util.find_spec, ("fastapi", "uvicorn"))):
            pytest.skip("transformers serve needs fastapi and uvicorn: pip install 'transformers[serving]'")
        # the module, since the command of that name may belong to another environment
        code = "from transformers.cli.transformers import main; main()"
        return [sys.executable, "-c", code, "serve", str(model), "--port", str(port), "--device", "cpu"]
    here = sys.executable if importlib.util.find_spec("vllm") else None
    if not (python := os.environ.get("VLLM_PYTHON") or here):
        pytest.skip("vLLM is not installed: name the Python of its environment in $VLLM_PYTHON")
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    return [*command, "--dtype", "float32", "--enforce-eager"]


def _wait(process: subprocess.Popen[bytes], url: str, seconds: float, log: Path) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"the server did not come up:\n{log.read_text()[-3000:]}")


def teach(folder: Path, pairs: Sequence[tuple[list[dict[str, str]], str]], steps: int = 400) -> Path:
    """A small model that has learnt by heart to answer each prompt with its text."""
    import torch
    from support.real_model import make_model
    from transformers import AutoModelForCausalLM

    from sdft_cli.models.pretrained import load_chat

    make_model(folder, [text for messages, reply in pairs for text in (messages[-1]["content"], reply)], window=2048)
    model, chat = AutoModelForCausalLM.from_pretrained(folder), load_chat(str(folder))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = [(chat.prompt_ids(messages), chat.text_ids(reply)) for messages, reply in pairs]
    width = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids = torch.full((len(rows), width), chat.pad_id)
    labels = torch.full((len(rows), width), -100)
    for i, (prompt, reply) in enumerate(rows):
        ids[i, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        labels[i, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 1e-3:
            break
    model.save_pretrained(folder)
    return folder
