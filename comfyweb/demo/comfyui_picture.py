"""A picture made of words: mountains in haze under a sun or a moon, the same for the same words. Pure, no library."""

import colorsys
import hashlib
import math
import random
import struct
import zlib

WIDTH = 512
HEIGHT = 384
_LAYERS = 5

Colour = tuple[float, float, float]


def picture(words: str) -> bytes:
    """Return a PNG, 512 by 384. Takes some tens of milliseconds: not for an event loop."""
    dice = random.Random(hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest())  # noqa: S311 - a picture
    hue = dice.random()
    night = dice.random() < 0.3  # noqa: PLR2004 - three in ten
    sky = _sky(dice, hue, night=night)
    ridges = [_ridge(dice, layer) for layer in range(_LAYERS)]
    rows = [bytearray(line) for line in sky]
    near = _colour(hue + 0.06, 0.55, 0.10 if night else 0.18)
    haze = _colour(hue - 0.10, 0.28, 0.42 if night else 0.82)
    for layer, ridge in enumerate(ridges):
        depth = (layer + 1) / _LAYERS
        colour = bytes(_mix(haze, near, depth**0.8))
        for y in range(HEIGHT):
            row = rows[y]
            for start, end in _spans(ridge, y):
                row[3 * start : 3 * end] = colour * (end - start)
    return _png(rows)


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return 255 * red, 255 * green, 255 * blue


def _mix(first: Colour, second: Colour, share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _sky(dice: random.Random, hue: float, *, night: bool) -> list[bytearray]:
    """Return rows of a gradient with a glow around the sun or moon, and stars at night."""
    top = _colour(hue + 0.08, 0.65, 0.12 if night else 0.55)
    low = _colour(hue - 0.14, 0.40, 0.45 if night else 0.98)
    light = _colour(hue - 0.2, 0.10, 1.0)
    sun_x, sun_y = dice.uniform(0.2, 0.8) * WIDTH, dice.uniform(0.18, 0.42) * HEIGHT
    radius = dice.uniform(16, 34)
    rows: list[bytearray] = []
    for y in range(HEIGHT):
        base = _mix(top, low, min(1.0, y / (0.72 * HEIGHT)))
        row = bytearray()
        for x in range(WIDTH):
            distance = math.hypot(x - sun_x, y - sun_y) - radius
            glow = 1.0 if distance <= 0 else 0.55 * math.exp(-distance / (1.9 * radius))
            grain = dice.random() - 0.5
            row += bytes(_mix((base[0] + grain, base[1] + grain, base[2] + grain), light, glow))
        rows.append(row)
    for _ in range(90 if night else 0):
        x, y = dice.randrange(WIDTH), dice.randrange(int(HEIGHT * 0.55))
        rows[y][3 * x : 3 * x + 3] = bytes((235, 238, 245))
    return rows


def _ridge(dice: random.Random, layer: int) -> list[int]:
    """Return the height of a chain of mountains at each x: waves on waves, rougher the nearer it is."""
    base = HEIGHT * (0.50 + 0.10 * layer)
    waves = [
        (HEIGHT * 0.11 / octave**1.15, octave * dice.uniform(0.7, 1.3), dice.uniform(0, math.tau))
        for octave in (1, 2, 4, 8, 16, 32)
    ]
    return [
        round(base - sum(size * math.sin(math.tau * turns * x / WIDTH + phase) for size, turns, phase in waves))
        for x in range(WIDTH)
    ]


def _spans(ridge: list[int], y: int) -> list[tuple[int, int]]:
    """Return the stretches of row `y` that lie below the ridge."""
    spans: list[tuple[int, int]] = []
    start = -1
    for x, height in enumerate(ridge):
        inside = height <= y
        if inside and start < 0:
            start = x
        elif not inside and start >= 0:
            spans.append((start, x))
            start = -1
    if start >= 0:
        spans.append((start, WIDTH))
    return spans


def _png(rows: list[bytearray]) -> bytes:
    """Return 8-bit RGB rows as a PNG file (https://www.w3.org/TR/png/)."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 6)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
