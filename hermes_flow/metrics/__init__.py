"""Turns the recording of a run into Polars frames, a summary and sweep tables."""
