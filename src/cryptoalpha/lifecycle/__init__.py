"""How a model is born, promoted and retired."""
