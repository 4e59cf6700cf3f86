"""Regimes: which kind of market this is, as a belief that never looks ahead."""
