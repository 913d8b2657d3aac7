"""Pools of models behind somebody else's API."""
