"""What a run found, as data, as JSON and as tables."""
