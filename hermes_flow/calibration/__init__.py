"""Turns a user's own measurements into a config entry for simulations (``hermes-flow calibrate``)."""
