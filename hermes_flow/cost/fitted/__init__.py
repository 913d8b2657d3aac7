"""Step times fitted to measurements: reading tables of them, fitting, and the error on what was held out."""
