"""The speed harness and the README's picture; both run from a checkout."""
