"""Offloading of prefix blocks by an LLM client: tiers of memory below its KV cache, and the loads from them."""
