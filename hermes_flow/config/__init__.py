"""The configuration: a typed schema, composing with Hydra, and strict validation."""
