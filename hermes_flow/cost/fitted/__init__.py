"""Step times fitted to measurements: reading tables, fitting, and errors on held-out rows."""
