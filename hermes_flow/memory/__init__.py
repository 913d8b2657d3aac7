"""KV memory on the device: blocks."""
