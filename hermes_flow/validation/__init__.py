"""Measured serving runs against their simulation: read, replay, compare."""
