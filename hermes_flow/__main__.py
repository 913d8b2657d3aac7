"""``python -m hermes_flow``, the same as ``hermes-flow``."""

from hermes_flow.cli import main

if __name__ == "__main__":
    main()
