"""The errors of predictions, by what is known of their step times."""
