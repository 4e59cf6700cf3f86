"""Is it any good? Measures, significance, bootstrap intervals, calibration, comparison with baselines."""
