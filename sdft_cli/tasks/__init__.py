"""Every file here is one task: TASK, which says how sources become examples and how a completion is graded."""
