"""The engine, the coordinator and how a Program becomes a running machine."""
