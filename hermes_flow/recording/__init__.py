"""What a simulation leaves behind, as columns."""
