"""Several agents, one target: who has earned a say, and how large a divided vote may be."""
