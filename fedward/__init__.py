"""What travels between a hospital's edge agent and the coordinator, and nothing of either side."""

__version__ = "0.1.0"
