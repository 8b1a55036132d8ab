"""Any tasks and groups of the EleutherAI harness, named by ``--harness``; 0 shots or many, as each task has it."""

from sdft_cli.harness.suite import HarnessSuite

SUITE = HarnessSuite(name="harness", summary="the harness's tasks that --harness names; the plain mean over them")
