"""The kinds of pools: one folder per kind."""
