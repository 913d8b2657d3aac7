"""A real vLLM on a CPU, alone and in pipelines: recorded runs, and the simulator beside them."""
