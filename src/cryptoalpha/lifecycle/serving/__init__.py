"""Serving: models answer over HTTP, each in a process of its own, with their version in every answer."""
