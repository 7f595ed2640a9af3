"""How much of which channel group goes, under a budget."""
