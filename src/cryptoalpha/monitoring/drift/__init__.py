"""Is it still what it was? Detectors whose false alarms come at a stated mean distance, and the monitor that runs them."""
