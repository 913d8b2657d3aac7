"""Routes ready tasks to clients and follows each request through its itinerary."""
