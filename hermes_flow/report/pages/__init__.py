"""HTML pages of runs, sweeps, plans, comparisons and validations, all made from one template."""
