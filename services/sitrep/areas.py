"""Area codes as reports use them: one code for one extent, and the regency that the public is told."""

from __future__ import annotations

from functools import cache

from schemas import vocabulary


@cache
def canonical(admin: str | None) -> str | None:
    """An area's code in Kemendagri's scheme where it has one of the same extent, so that one area is one line."""
    return None if admin is None else vocabulary.to_scheme(admin, "kemendagri") or admin


@cache
def at_level(admin: str | None, level: int) -> str | None:
    """The province (1) or regency (2) that an area code lies in; the code itself where it is coarser."""
    admin = canonical(admin)
    area = vocabulary.area(*vocabulary.split(admin)) if admin is not None else None
    while area is not None and area.level > level and area.parent is not None:
        area = vocabulary.area(area.scheme, area.parent.partition(":")[2] or area.parent)
    return canonical(str(area)) if area is not None else admin


def coarse(admin: str | None) -> str | None:
    """The regency that an area code lies in: what the public is told, and anybody of what is protected."""
    return at_level(admin, 2)
