"""The clock: resources, their next instants, and the loop that fires them in order."""
