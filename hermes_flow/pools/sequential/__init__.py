"""Pools of hosts that serve one task per core."""
