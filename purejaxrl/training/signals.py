"""Handling of signals that would end a process, so that what has been learned can be written first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any, NoReturn

# What asks a process to end.
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
# What closed terminals send, SSH among them, and schedulers such as SLURM before time is up: often more than once.
# Windows has none of them; that it is not supported is said elsewhere.
NOTICES = tuple(
    signal.Signals[name] for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU") if name in signal.Signals.__members__
)


def _end_at_once(number: int, _: FrameType | None = None) -> NoReturn:
    """End the process with the exit code of a signal, without an exception."""
    os._exit(128 + number)


def end_at_signals() -> None:
    """Let every one of these signals end the process at once, except those that it was started to ignore.

    `nohup` has SIGHUP ignored. Only a program may do this; importing the package never does.
    """
    for number in (*INTERRUPTS, *NOTICES):
        if number in INTERRUPTS or signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end_at_once)


class StopSignals(AbstractContextManager["StopSignals"]):
    """Context manager that records signals in place of ending the process; a second SIGINT or SIGTERM ends it at once.

    SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU are left to programs that ignore or handle them, and may come any number of
    times: a terminal that is closed sends SIGHUP twice. Signals reach Python only in the main thread; elsewhere nothing
    is changed.

    Attributes:
        received: Number of the first signal received, None before.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}
        self._interrupts: list[int] = []
        self._waiting: list[int] = []

    def is_stopping(self) -> bool:
        """Check whether a signal has been received."""
        return self.received is not None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (*INTERRUPTS, *NOTICES):
                handler = signal.getsignal(number)
                # None stands for a handler that is not Python's, which could not be restored.
                is_ours = handler is not None if number in INTERRUPTS else handler in (signal.SIG_DFL, _end_at_once)
                if is_ours:
                    self._previous[number] = signal.signal(number, self._note)
        self._interrupts = [number for number in INTERRUPTS if number in self._previous]
        return self

    def __exit__(self, *_: object) -> None:
        self._restore(*self._previous)

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Hold back SIGINT and SIGTERM, even a second one, until what is written in this context is whole."""
        handlers = {number: signal.signal(number, self._wait) for number in self._interrupts}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            waiting, self._waiting = self._waiting, []
            for number in waiting:
                signal.raise_signal(number)

    def _wait(self, number: int, _: FrameType | None) -> None:
        self._waiting.append(number)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received is None:
            self.received = number
        if number in INTERRUPTS:
            self._restore(*INTERRUPTS)

    def _restore(self, *numbers: int) -> None:
        for number in numbers:
            if number in self._previous:
                signal.signal(number, self._previous.pop(number))
