"""What is fast and not obvious."""
