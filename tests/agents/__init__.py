"""Agents that are not part of the package, each in one file: what the contract of `purejaxrl.Agent` must carry."""
