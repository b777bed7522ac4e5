"""SIGINT and SIGTERM as something to be asked for, so that what has been learned can be written whole."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any


class StopSignals(AbstractContextManager["StopSignals"]):
    """While entered, SIGINT and SIGTERM are noted instead of ending the process; a second one ends it at once.

    Signals reach Python only in the main thread; elsewhere nothing is changed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def is_stopping(self) -> bool:
        """Whether a signal came."""
        return self.received is not None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
