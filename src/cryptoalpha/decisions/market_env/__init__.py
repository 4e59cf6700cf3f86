"""A market to learn trading in, behind the gymnasium interface: bars, a simulated market or a scenario model."""
