"""A support desk in plain English, all of it made up: customers' messages, their orders, and a company's handbook.

It stands beside the micro world for real language models: prompts are short, demonstrations are in a style of the
desk's own, and nothing in them is known to any model. The tasks `desk-triage`, `desk-orders` and `desk-handbook` are
made of it.
"""
