"""A cache limited by bytes: what was used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Anything that knows how many bytes it holds."""

    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


class ByteLimitedCache(Generic[V]):
    """Values by key, together at most ``max_bytes``; a single larger value is kept alone until the next one comes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def get(self, key: Hashable) -> V | None:
        """The value, which thereby counts as used, or None."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Hashable, value: V) -> V:
        """Keep ``value``, dropping others as needed, and return it."""
        self.discard(key)
        self._values[key] = value
        self.nbytes += value.nbytes
        while self.nbytes > self.max_bytes and len(self._values) > 1:
            _, oldest = self._values.popitem(last=False)
            self.nbytes -= oldest.nbytes
        return value

    def get_or(self, key: Hashable, compute: Callable[[], V]) -> V:
        """The value, computed and kept if it is not there."""
        value = self.get(key)
        return self.put(key, compute()) if value is None else value

    def discard(self, key: Hashable) -> None:
        """Forget a value, if it is there."""
        value = self._values.pop(key, None)
        if value is not None:
            self.nbytes -= value.nbytes

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self.nbytes = 0
