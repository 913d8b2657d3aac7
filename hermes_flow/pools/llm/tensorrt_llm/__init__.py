"""TensorRT-LLM's scheduler: which requests have memory, which of them run now, and how prompts are cut."""
