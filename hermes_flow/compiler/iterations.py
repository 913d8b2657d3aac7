"""The limit on how often a loop of a pipeline may run for one request."""

MOST_ITERATIONS = 256
