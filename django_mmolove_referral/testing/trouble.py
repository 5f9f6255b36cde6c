"""What the app logged during a test: trouble that it kept away from the visitor is seen nowhere else."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class Overheard(logging.Handler, AbstractContextManager["Overheard"]):
    """The warnings and errors of the app's loggers while this is entered, one line each."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.lines.append(record.getMessage() + (f" ({type(error).__name__}: {error})" if error else ""))

    def __enter__(self) -> Overheard:
        logging.getLogger("mmolove_referral").addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        logging.getLogger("mmolove_referral").removeHandler(self)
        self.close()
