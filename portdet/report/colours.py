"""Colours that stay apart, also for colour-blind eyes and on dark ground (Okabe and Ito 2008, then hues in turn)."""

from __future__ import annotations

import colorsys

Rgb = tuple[int, int, int]

_FIRST: tuple[Rgb, ...] = (
    (0, 114, 178),
    (230, 120, 20),
    (0, 158, 115),
    (204, 80, 150),
    (86, 180, 233),
    (213, 60, 40),
    (200, 170, 20),
    (120, 94, 240),
)
_GOLDEN = 0.618033988749895  # a turn by the golden ratio never comes near an earlier hue


def colour(index: int) -> Rgb:
    """The colour of class, backend or curve number `index`, always the same."""
    if index < len(_FIRST):
        return _FIRST[index]
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN % 1, 0.75 if index % 2 else 0.55, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def hexadecimal(rgb: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def ink_on(rgb: Rgb) -> Rgb:
    """Black or white, whichever reads better on `rgb` (luma of ITU-R BT.601)."""
    return (0, 0, 0) if 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 140 else (255, 255, 255)
