"""Pools of clients that serve several tasks in one pass."""
