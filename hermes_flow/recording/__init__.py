"""The recording of a simulation, as columns."""
