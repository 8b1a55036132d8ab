"""Any tasks and groups of the EleutherAI harness, named by ``--harness``, with each task's own number of shots."""

from sdft_cli.harness.suite import HarnessSuite

SUITE = HarnessSuite(
    name="harness", summary="tasks of the EleutherAI harness, named by --harness; the plain mean over them"
)
