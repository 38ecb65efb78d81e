"""A set that has grown is prepared as before, unless that would be clearly wrong for it.

A few more images move the median spacing or the window a little. Followed, that would prepare every image anew, for a
difference that no network sees.
"""

from collections.abc import Sequence

from fmseg.records.plans import Preprocessing, Reason

#: sizes and spacings that differ by less, and ends of windows that differ by less of their width, stay as they are
TOLERANCE = 0.1
KEPT = ("image_size", "spacing_mm", "window")
SAME = ("size_mode", "channels", "intensity", "store_dtype")


def steady(
    planned: Preprocessing, because: tuple[Reason, ...], former: Preprocessing | None
) -> tuple[Preprocessing, tuple[Reason, ...]]:
    """Return what was planned with the former sizes, spacing and window where these are close to the planned ones.

    former: that of the images that are prepared already; None where there are none.
    """
    if former is None or not is_close(planned, former):
        return planned, because
    changed = [name for name in KEPT if getattr(planned, name) != getattr(former, name)]
    if not changed:
        return planned, because
    told = f"as the images that are prepared already; the whole set would have it within {TOLERANCE:.0%} of that"
    kept = {f"preprocessing.{name}" for name in changed}
    reasons = tuple(Reason(key=each.key, because=told) if each.key in kept else each for each in because)
    return planned.evolve(**{name: getattr(former, name) for name in changed}), reasons


def is_close(one: Preprocessing, other: Preprocessing) -> bool:
    """Return whether two ways to prepare images differ by less than the tolerance."""
    if any(getattr(one, name) != getattr(other, name) for name in SAME) or len(one.window) != len(other.window):
        return False
    sizes = _are_near(one.image_size, other.image_size)
    spacings = _are_near(one.spacing_mm or (), other.spacing_mm or ())
    widths = [high - low for low, high in other.window]
    windows = all(
        abs(a - b) <= TOLERANCE * width
        for (first, second), width in zip(zip(one.window, other.window, strict=True), widths, strict=True)
        for a, b in zip(first, second, strict=True)
    )
    return sizes and spacings and windows


def _are_near(some: Sequence[float], others: Sequence[float]) -> bool:
    return len(some) == len(others) and all(abs(a - b) <= TOLERANCE * b for a, b in zip(some, others, strict=True))
