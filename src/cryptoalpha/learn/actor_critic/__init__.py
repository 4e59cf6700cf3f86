"""A small learner from outcomes: advantages, the loss, the guarded update, and the queue in which rewards wait until they are known."""
