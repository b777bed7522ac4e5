"""CartPole as gymnasium draws it, in JAX."""
