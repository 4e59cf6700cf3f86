"""Is it any good? Measures, significance, calibration."""
