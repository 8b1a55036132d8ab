"""Run folders: written, read, locked; runs side by side."""
