"""Pools of stores that keep KV caches in tiers of memory."""
