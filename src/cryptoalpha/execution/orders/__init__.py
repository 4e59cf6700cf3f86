"""The life of an order: what it may become, what a venue's answer means, when it may be called absent."""
