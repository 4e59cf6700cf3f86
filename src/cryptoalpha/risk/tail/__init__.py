"""Tail risk: how bad a day may be, which position brings it, and whether such forecasts came true."""
