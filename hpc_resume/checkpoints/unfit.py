"""A format cannot hold a value: said at registration, with the place inside the state."""

from __future__ import annotations


class UnfitError(Exception):
    """`place` is an index expression below the state (`['rng'][3]`, "" for the state itself). Never shown as it is."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"state{place} {reason}")
