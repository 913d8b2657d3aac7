"""The things that serve tasks: LLM clients with a scheduler, and hosts with cores."""
