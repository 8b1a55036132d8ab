"""The desk: a made-up company in plain English, for models that already speak it.

Three skills of its support desk, each with a convention that nobody can guess, and the skills that a model should keep
meanwhile. Everything is drawn by seed from word lists; no row is copied from anywhere.
"""
