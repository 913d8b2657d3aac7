"""Harnesses to run from a checkout: how fast the simulator is, whether it schedules as a real engine does."""
