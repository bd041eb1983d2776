"""How fast anonymous reports come in: sliding windows of one minute in this process's memory.

What is over a contact's, device's or address's rate is still taken and linked last; only an address far beyond it is
turned away. A restart forgets the windows, which costs nothing but a minute's patience.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from fastapi import Request

from services.runtime import clock
from services.runtime.auth import Actor
from services.runtime.problems import TooMany

WINDOW_S = 60.0
PER_SENDER = 10
PER_ADDRESS = 600
MOST_PER_ADDRESS = 6000
MOST_BYTES = 50 * 1024 * 1024
_KEPT = 50_000
_STEP_S = 0.5  # events of one half second are one entry: a window holds at most 120 of them


class Window:
    """Sums over the last minute, for many keys; the keys longest unused are forgotten first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()
        self._sums: dict[str, int] = {}

    def add(self, key: str, amount: int, at_s: float) -> int:
        """Count so much for a key now; returns its sum over the last minute, this included."""
        entries = self._entries.get(key)
        if entries is None:
            entries = self._entries[key] = deque()
            if len(self._entries) > _KEPT:
                gone, _ = self._entries.popitem(last=False)
                self._sums.pop(gone, None)
        else:
            self._entries.move_to_end(key)
        total = self._sums.get(key, 0)
        while entries and entries[0][0] <= at_s - WINDOW_S:
            total -= entries.popleft()[1]
        if amount:
            slot = at_s - at_s % _STEP_S
            if entries and entries[-1][0] == slot:
                entries[-1] = (slot, entries[-1][1] + amount)
            else:
                entries.append((slot, amount))
        self._sums[key] = total + amount
        return total + amount


class Rates:
    """The windows of one web process."""

    def __init__(self) -> None:
        self._senders = Window()
        self._addresses = Window()
        self._bytes = Window()

    def admit(self, actor: Actor) -> bool:
        """Count a request; whether its address is over the rate at which reports are linked first.

        Raises
        ------
        TooMany
            Over 6,000 requests or 50 MB within a minute from this address.
        """
        if not actor.anonymous:
            return False
        at_s = clock.now().timestamp()
        requests = self._addresses.add(actor.address, 1, at_s)
        if requests > MOST_PER_ADDRESS or self._bytes.add(actor.address, 0, at_s) > MOST_BYTES:
            raise TooMany("too much from this address; wait a minute", headers={"Retry-After": "60"})
        return requests > PER_ADDRESS

    def weigh(self, actor: Actor, size: int) -> None:
        """Count the bytes of a request that was read; what is too much shows at the next one."""
        if actor.anonymous:
            self._bytes.add(actor.address, size, clock.now().timestamp())

    def bulk(self, actor: Actor, contact: str | None) -> bool:
        """Count a report for its contact and its device; whether either is over its rate."""
        if not actor.anonymous:
            return False
        at_s = clock.now().timestamp()
        senders = [key for key in (contact, actor.device and f"device:{actor.device}") if key]
        return max((self._senders.add(key, 1, at_s) for key in senders), default=0) > PER_SENDER


def rates_of(request: Request) -> Rates:
    """The windows of this web process."""
    state = request.app.state
    if not hasattr(state, "intake_rates"):
        state.intake_rates = Rates()
    rates: Rates = state.intake_rates
    return rates
