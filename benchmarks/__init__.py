"""How fast the simulator is, and whether it schedules as a real engine does: harnesses to run from a checkout."""
