"""The tables of a run as Polars frames, one room for each table."""
