"""A rank that gets into trouble, in a call that all ranks are in: ``python -m tests.support.rank_trouble KIND``."""

import os
import signal
import sys
import time

import torch

from sdft_cli.distributed.team import join, leave, team
from sdft_cli.errors import SdftError
from sdft_cli.training.learner import _agree


def together(kind: str, rank: int) -> int:
    """The last rank does what ``kind`` says; the others wait for it in a collective."""
    if kind == "all raise":
        raise SdftError("as it should be", "nothing")
    if team().rank == rank:
        if kind == "raise":
            raise ValueError("a fault of one rank")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if kind == "skip":
            _agree(7, 0.5, 1.0)
            return 0
    if kind == "skip":
        torch.distributed.all_reduce(torch.full((2, 3), 3.0, dtype=torch.float64))
        return 0
    torch.distributed.all_reduce(torch.zeros(4))
    return team().size


def main() -> int:
    ranks = join()
    if not ranks.leads:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ranks.serve()
        leave()
        return 0
    kind = sys.argv[1]
    code = 0
    try:
        print("before", ranks.run(together, "nothing", 0), flush=True)
        ranks.run(together, kind, ranks.size - 1)
    except SdftError as error:
        print(f"error: {error.message}", file=sys.stderr, flush=True)
        code = error.code
    if kind == "all raise":
        print("after", ranks.run(together, "nothing", 0), flush=True)
    print("end", time.time(), flush=True)
    leave()
    return code


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    os._exit(ended)
