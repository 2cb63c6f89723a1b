"""Words for units of length and time, as files of several formats write them."""

from __future__ import annotations

_MM = {
    "m": 1000.0, "meter": 1000.0, "metre": 1000.0, "cm": 10.0, "centimeter": 10.0, "mm": 1.0, "millimeter": 1.0,
    "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3, "\\u00b5m": 1e-3, "micrometer": 1e-3,
    "nm": 1e-6, "nanometer": 1e-6, "inch": 25.4, "in": 25.4,
}  # fmt: skip
_SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3,
    "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "microsecond": 1e-6, "ns": 1e-9, "nanosecond": 1e-9,
    "min": 60.0, "minute": 60.0,
}  # fmt: skip


def millimetres(unit: str) -> float:
    """Millimetres in one ``unit``; 0 for a unit that is not known, or not a length."""
    return _MM.get(str(unit).strip().lower(), 0.0)


def seconds(unit: str) -> float:
    """Seconds in one ``unit``; 0 for a unit that is not known, or not a time."""
    return _SECONDS.get(str(unit).strip().lower(), 0.0)
