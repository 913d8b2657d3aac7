"""From a user's own measurements to a file of figures that the simulator takes: ``hermes-flow calibrate``."""
