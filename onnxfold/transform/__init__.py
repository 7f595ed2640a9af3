"""Edits of a model: from merges to a smaller ModelProto."""
