"""Small worlds whose best policy is known exactly: what a planner or a learner has to find before anybody trusts it with a market."""
