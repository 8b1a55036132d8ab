"""A user's own files as examples: layouts, columns, conversations, options, gold answers, and what a row becomes.

`resolve` is where the commands come in; shipped tasks use `formats`, `values` and `splits`.
"""
