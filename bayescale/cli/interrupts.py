"""Ctrl-C reaches the command line wherever it lands, and a pipe that nobody reads any more ends it.

Python cannot raise through a callback from C, such as those of Numba's compiler: it prints the interrupt and
goes on, for minutes. Here an interrupt so lost is sent again a moment later. And what an interrupt ends, ends
at once: on its way out Python would take another interrupt for a crash, and threads of samplers may crash it.
"""

import os
import signal
import sys
from typing import NoReturn

_INTERRUPTED = 130
_UNREAD = 141  # 128 + SIGPIPE, as shells tell of programs that a closed pipe ends
_AGAIN_SECONDS = 0.05


def resend_lost_interrupts() -> None:
    """Have interrupts that Python could not raise sent again, where the system has timers."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        sys.unraisablehook = _resend


def came_of(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether an error is one of a kind or came of one; one that a command took for its own end is none."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def end_interrupted() -> NoReturn:
    """End the program, all files closed already, without Python's own way out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("interrupted; nothing half-written", file=sys.stderr, flush=True)
    os._exit(_INTERRUPTED)


def end_unread() -> NoReturn:
    """End the program whose output nobody reads: Python would fail once more to write what is left of it."""
    os._exit(_UNREAD)


def _resend(lost: "sys.UnraisableHookArgs") -> None:
    if lost.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(lost)
