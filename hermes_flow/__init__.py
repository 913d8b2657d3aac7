"""A simulator of multi-stage LLM serving."""
