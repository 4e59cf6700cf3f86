"""What both planners ask of chance: how near a uniform may come to 0 and 1, and how exactly weights must sum to 1."""

from __future__ import annotations

EDGE = 2.0**-24
"""Uniforms stay this far from 0 and 1, so that a model computing in float32 never meets an infinite quantile."""

WEIGHT_TOLERANCE = 1e-5
"""Weights of a node may miss 1 by this much (rounding in float32)."""
