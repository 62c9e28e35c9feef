"""Values: frozen dataclasses with slots, and their changed copies, at the price of ordinary objects.

Every decision makes some dozens of them. At run time ``dataclasses`` freezes a class by setting each field through
``object.__setattr__``, which makes a row of 18 fields cost 1.6 µs instead of 0.2, and its ``replace`` asks each field
about itself (4.3 µs instead of 0.8). So here the freezing is left to mypy, which sees ``dataclasses``' own and refuses
an assignment to a field anywhere. ``tests/test_values.py`` runs the decisions with values that do freeze.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING

__all__ = ["dataclass", "replace"]

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:
    _FIELDS = {}

    def dataclass(*, frozen, slots):
        """``dataclasses.dataclass`` for a class that nobody changes: equal and hashed by its fields."""

        def decorate(kind):
            kind = dataclasses.dataclass(slots=slots, unsafe_hash=frozen)(kind)
            names = kind.__match_args__
            get = attrgetter(*names)
            _FIELDS[kind] = get if len(names) > 1 else lambda row: (get(row),)
            return kind

        return decorate

    def replace(row, /, **changes):
        """A copy of *row* in which *changes* are as given; ``AttributeError`` for what is no field of it."""
        kind = type(row)
        copy = kind(*_FIELDS[kind](row))
        for name, value in changes.items():
            setattr(copy, name, value)
        return copy
