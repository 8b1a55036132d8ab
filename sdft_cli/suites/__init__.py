"""Every file here is one suite: SUITE, fixed graded examples by part (see CONTRIBUTING)."""
