"""The house on a cluster: its chart rendered, and traffic shifted between versions through the Kubernetes API."""
