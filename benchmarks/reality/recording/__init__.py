"""Runs a real vLLM on one core, alone and in pipelines, and records it; for an environment with vLLM."""
