"""The studies of docs/studies: each runs an experiment and writes its table, figure and findings."""
