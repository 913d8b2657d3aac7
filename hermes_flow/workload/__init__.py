"""What arrives: arrival processes, length distributions, trace readers."""
