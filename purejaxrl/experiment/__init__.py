"""A training from its plan to its last file."""
