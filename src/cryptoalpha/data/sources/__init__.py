"""Live sources: exchanges, X, Reddit, news, chains and mood, each as an endless stream that survives its publisher."""
