"""The folders in which results land: what is in them, who writes into them, and the jobs of a sweep."""
