"""Workloads: arrival processes, length distributions and trace readers."""
