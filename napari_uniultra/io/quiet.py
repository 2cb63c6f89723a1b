"""pydicom without its messages: they may quote any part of a file, a patient's name among them."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.config import disable_value_validation

_lock = threading.RLock()  # warning filters and pydicom's settings belong to the whole process


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from quoting values in warnings and in the log, and from refusing values that break its rules."""
    logger = logging.getLogger("pydicom")
    with _lock, warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        logger.addFilter(_drop)
        try:
            yield
        finally:
            logger.removeFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return False
