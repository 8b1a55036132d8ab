"""Dataset folders: read, de-duplicated, measured, fetched from the hub."""
