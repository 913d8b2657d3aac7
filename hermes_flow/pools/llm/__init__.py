"""Pools of LLM clients."""
