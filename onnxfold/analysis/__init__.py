"""Channel groups, what pins channels in place, and costs. Nothing is run here."""
