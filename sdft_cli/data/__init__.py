"""Dataset folders: reading, writing and checking them, source files, de-duplication, lengths, the hub."""
