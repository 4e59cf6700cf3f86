"""The registry of models: versions that cannot change, one champion per line, and what was said of each version."""
