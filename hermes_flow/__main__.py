"""The command: ``hermes-flow``, or ``python -m hermes_flow``.

Python shows a traceback at Ctrl-C as long as nobody catches it. Until the command line runs, and after it has ended,
the signal therefore ends the process as the system does it, with the same status for a shell.
"""

from __future__ import annotations

import gc
import signal
import sys

# Importing and composing create many objects that stay, which Python would look through again and again (5 % of the
# CPU time of a short command). So it looks for unused cycles less often, after so many new objects. At the end of the
# process it would look through everything three times more (15 %), although all memory is given back then: what is
# frozen is left out.
_NEW_OBJECTS_PER_COLLECTION = 200_000

_ANSWER = signal.getsignal(signal.SIGINT)


def main() -> None:
    """Run the command that this process was started with."""
    gc.set_threshold(_NEW_OBJECTS_PER_COLLECTION)
    from hermes_flow.cli import main as run

    try:
        _set(_ANSWER)
        run()
    except KeyboardInterrupt:  # the command has answered one already
        sys.exit(130)
    finally:
        _set(signal.SIG_DFL)
        gc.freeze()


def _set(answer: object) -> None:
    if _ANSWER is signal.default_int_handler:  # a signal that is ignored stays so
        signal.signal(signal.SIGINT, answer)  # type: ignore[arg-type]


_set(signal.SIG_DFL)

if __name__ == "__main__":
    main()
