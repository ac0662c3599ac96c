"""Live delivery: from what Redis publishes to the bytes every viewer receives."""
