"""The report of a run: one HTML file that needs nothing but a browser, and the numbers in it as `metrics.json`."""
