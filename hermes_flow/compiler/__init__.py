"""Compiles a Config to a Program: parse, check, materialize, fuse, lower (compile.py lists the phases)."""
