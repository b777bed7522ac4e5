"""The parts that agents are built from."""
