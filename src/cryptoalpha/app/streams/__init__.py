"""Live streams beside the loop: sources in a thread of their own, what they bring handed over at each bar."""
