"""Keep the harness from disturbing its surroundings: generators, stdout, progress bars, programs that it starts."""

from __future__ import annotations

import contextlib
import logging
import random
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import device as Device


@contextlib.contextmanager
def undisturbed(device: Device) -> Iterator[None]:
    """The harness seeds every random generator and prints to stdout; afterwards all are as they were.

    Also suppressed are its progress bar for making requests (MMLU has 57 tasks), and its description of the machine,
    for which every evaluation starts git and a dozen other programs.
    """
    import datasets
    import numpy as np
    import torch
    from lm_eval import evaluator
    from lm_eval.api import task

    states, level = (random.getstate(), np.random.get_state()), logging.getLogger("lm_eval").level
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            contextlib.redirect_stdout(sys.stderr),
            _replaced(task, tqdm=lambda rows, **_: rows),
            _replaced(evaluator, add_env_info=lambda results: None, get_git_commit_hash=lambda: None),
        ):
            yield
    finally:
        datasets.enable_progress_bars()
        logging.getLogger("lm_eval").setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])


def seed(number: int) -> None:
    """Set Python's generator as the harness's command line has it when it scores a task: seeded, and drawn from once by
    an import of its own. Two of IFEval's instructions name a letter that cannot be counted, and it draws others."""
    random.seed(number)
    random.getrandbits(24)


@contextlib.contextmanager
def _replaced(module: ModuleType, **others: object) -> Iterator[None]:
    originals = {name: getattr(module, name) for name in others}
    for name, other in others.items():
        setattr(module, name, other)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(module, name, original)
