"""vLLM's scheduler under its policy ``priority``: urgent requests go first and take the blocks of others."""
