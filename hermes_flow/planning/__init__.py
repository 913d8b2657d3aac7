"""Decisions over whole simulations: the capacity of a design, and which design to buy."""
