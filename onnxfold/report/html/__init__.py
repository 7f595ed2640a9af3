"""Reports as one HTML file that needs nothing beside it: no network, no server, no other file."""
