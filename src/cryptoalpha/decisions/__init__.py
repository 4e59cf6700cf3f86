"""Signals → fused signal → decision."""
