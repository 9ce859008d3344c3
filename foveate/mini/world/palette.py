"""The twelve colours as sRGB, and how far two of them are apart."""

import numpy as np

RGB = {
    "red": (222, 30, 30),
    "green": (20, 130, 45),
    "blue": (35, 65, 225),
    "yellow": (252, 226, 40),
    "purple": (128, 40, 172),
    "cyan": (40, 212, 230),
    "white": (250, 250, 250),
    "orange": (255, 140, 20),
    "pink": (255, 130, 192),
    "brown": (120, 70, 30),
    "lime": (150, 240, 50),
    "gray": (128, 128, 128),
}


def luminance(rgb) -> float:
    """Relative brightness of an sRGB triple in 0..1 (Rec. 709 weights, no linearisation)."""
    r, g, b = rgb
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def unit(colour: str) -> tuple[float, float, float]:
    """A named colour as three floats in 0..1."""
    r, g, b = RGB[colour]
    return r / 255, g / 255, b / 255


def brighter(rgb, by: float) -> tuple[float, float, float]:
    """An sRGB triple in 0..1 with the same added to every channel, darker when negative."""
    r, g, b = (min(1.0, max(0.0, v + by)) for v in rgb)
    return r, g, b


def apart(a, b) -> float:
    """Largest difference of one channel between two sRGB triples in 0..1."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def lab(rgb: tuple[int, int, int]) -> np.ndarray:
    """CIE L*a*b* (D65) of an 8-bit sRGB triple."""
    c = np.asarray(rgb, dtype=np.float64) / 255
    c = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    matrix = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = matrix @ c / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(a: str, b: str) -> float:
    """CIE 1976 ΔE between two named colours."""
    return float(np.linalg.norm(lab(RGB[a]) - lab(RGB[b])))
