"""Tasks, one per file: TASK says how sources become examples and how a completion is graded."""
