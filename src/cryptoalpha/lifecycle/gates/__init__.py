"""What a version must pass before it may decide over money, and how much money it gets then."""
