"""The fusion's search: which families of evidence to believe, decided bar by bar for the whole book."""
