"""How any agent is run."""
