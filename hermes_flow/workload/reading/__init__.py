"""Decides what the columns of a trace mean, and refuses what could mean several things."""
