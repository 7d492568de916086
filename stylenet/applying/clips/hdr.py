"""HDR frames (HLG and PQ, as telephones film them) in the colours of an ordinary screen.

Curves and the reference white of 203 cd/m² are those of ITU-R BT.2100 and BT.2408, the primaries
those of BT.2020 and BT.709.
"""

from __future__ import annotations

import functools

import numpy as np

# FFmpeg's numbers for the transfer curves
CURVES = {16: "pq", 18: "hlg"}
WHITE_NITS = 203.0  # what an ordinary screen shows as white
HLG_PEAK_NITS, HLG_GAMMA = 1000.0, 1.2  # the screen that HLG is made for
LUMINANCE_2020 = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
TO_709 = np.array(
    [
        [1.660491, -0.587641, -0.072850],
        [-0.124550, 1.132900, -0.008349],
        [-0.018151, -0.100579, 1.118730],
    ],
    dtype=np.float32,
)  # linear BT.2020 -> linear BT.709
KNEE = 0.8  # light above it is rolled off towards white
LEVELS = 2**16


def to_sdr(signal: np.ndarray, curve: str) -> np.ndarray:
    """A frame uint16 [H, W, 3] in BT.2020 and a curve of CURVES as 8-bit RGB of sRGB's colours."""
    light = decoding(curve)[signal]  # [H, W, 3], 1 is an ordinary screen's white
    if curve == "hlg":
        # the screen's own gamma applies to the luminance, so that colours keep their hue
        scene = light @ LUMINANCE_2020
        light *= (np.maximum(scene, 1e-6) ** (HLG_GAMMA - 1))[..., None]
        light *= HLG_PEAK_NITS / WHITE_NITS
    light = light @ TO_709.T
    light = np.where(light > KNEE, rolled_off(light), np.maximum(light, 0))
    return encoding()[(light * (LEVELS - 1)).astype(np.uint16)]


def rolled_off(light: np.ndarray) -> np.ndarray:
    """Light above the knee, compressed smoothly to below 1."""
    return KNEE + (1 - KNEE) * np.tanh((light - KNEE) / (1 - KNEE))


@functools.cache
def decoding(curve: str) -> np.ndarray:
    """The linear light of each 16-bit value of a signal.

    PQ: in units of WHITE_NITS. HLG: the scene's light, 1 at most.
    """
    signal = np.linspace(0, 1, LEVELS)
    if curve == "pq":
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = signal ** (1 / m2)
        nits = 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
        return (nits / WHITE_NITS).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return scene.astype(np.float32)


@functools.cache
def encoding() -> np.ndarray:
    """The 8-bit value of sRGB for each of LEVELS steps of linear light."""
    light = np.linspace(0, 1, LEVELS)
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(signal * 255).astype(np.uint8)
