"""From a Config to a Program: parse, check, materialize, fuse, lower (see compile.py for the passes)."""
