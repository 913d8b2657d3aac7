"""Decisions from whole simulations: the capacity of a design, and the design to buy."""
