"""Several processes at one run: who they are, what they do together, and how a failure of one ends all."""
