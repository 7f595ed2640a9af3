"""The passes that commands are made of."""
