"""What a user may write: the typed schema, composing with Hydra, strict validation."""
