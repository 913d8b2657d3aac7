"""The simulator: the event engine, the coordinator, and building both from a Program."""
