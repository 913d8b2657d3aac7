"""Compares measured serving runs with their simulation."""
