"""The compiled program: plain data between the compiler and the simulator."""
