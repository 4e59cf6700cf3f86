"""What is kept: journal, history, as-of views, the bar gate and the lock."""
