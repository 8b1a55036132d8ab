"""Rows from anywhere: files and hub, their lengths, repeats, overlap and graders."""
