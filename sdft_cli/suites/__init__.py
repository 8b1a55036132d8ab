"""One suite per file, as SUITE: fixed graded examples by part, or a battery that another library measures."""
