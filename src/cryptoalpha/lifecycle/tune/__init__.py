"""How training settings are searched, and how often the data have been asked."""
