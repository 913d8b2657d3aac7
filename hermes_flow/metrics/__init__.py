"""From what ran to tables: recording, Polars frames, summary, sweeps."""
