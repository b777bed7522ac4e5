"""The training loop, which runs any agent."""
