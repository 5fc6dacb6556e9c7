"""Fourier shell correlation: the curve, its correction for a mask, and the resolution and ratios that follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.fourier import half_weights, irfftn, rfftn, shell_index_3d
from nephila.kernels.shells import shell_products

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Complex64 = npt.NDArray[np.complex64]


def fourier_shell_correlation(a: npt.ArrayLike, b: npt.ArrayLike, threads: int = 1) -> Float64:
    """FSC of two volumes over shells round(|k|): `sum Re(A B*) / sqrt(sum |A|^2 sum |B|^2)`.

    Args:
        a, b: real volumes [n, n, n] of the same side, odd or even.

    Returns:
        float64 [n // 2 + 1]; 0 in shells where one of the two has no power. Index 0 is the mean value's.

    Raises:
        InputError: shapes that differ or are not cubic, NaN.
    """
    first, second = _check(a), _check(b)
    if first.shape != second.shape:
        raise InputError(f"volumes of shapes {first.shape} and {second.shape} cannot be compared; resample one of them")
    return _correlate(rfftn(first, threads), rfftn(second, threads))


def _check(volume: npt.ArrayLike) -> Float32:
    data = np.asarray(volume, dtype=np.float32)
    if data.ndim != 3 or len(set(data.shape)) != 1:
        raise InputError(f"a cubic volume is needed, this one has the shape {data.shape}")
    if not np.isfinite(data).all():
        raise InputError("the volume holds NaN or infinite values")
    return data


def _correlate(a: Complex64, b: Complex64) -> Float64:
    n = a.shape[0]
    cross, power_a, power_b = shell_products(a, b, shell_index_3d(n), half_weights(n), n // 2 + 1)
    product = power_a * power_b
    curve = np.divide(cross, np.sqrt(product), out=np.zeros_like(cross), where=product > 0)
    return np.clip(curve, -1.0, 1.0)  # rounding goes beyond


def resolution_at(
    fsc: npt.ArrayLike, threshold: float, n: int, pixel_size: float, interpolate: bool = False
) -> float | None:
    """Resolution in A: that of the last shell before the first one (from 1) below the threshold.

    Args:
        fsc: [n // 2 + 1].
        threshold: 0.5 (map against truth or SPIDER's habit), 0.143 (half maps).
        interpolate: the place where the straight line between the two shells crosses the threshold, instead.

    Returns:
        A; Nyquist's resolution (of the last shell) where the curve never falls below; None where the first shell is below
        already: nothing is resolved.
    """
    curve = np.asarray(fsc, dtype=np.float64)
    if curve.shape != (n // 2 + 1,) or np.isnan(curve).any():
        raise InputError(f"an FSC of {n // 2 + 1} shells without NaN is needed for side {n}, not {curve.shape}")
    below = np.flatnonzero(curve[1:] < threshold)
    if len(below) == 0:
        return n * pixel_size / (n // 2)
    last = int(below[0])
    if last == 0:
        return None
    shell = float(last)
    if interpolate:
        shell += float((curve[last] - threshold) / (curve[last] - curve[last + 1]))
    return n * pixel_size / shell


MASK_CORRELATION = 0.1
"""FSC of phase-randomised maps, mean of three shells, from which the mask itself is said to make resolution."""


@dataclass(frozen=True)
class MaskedFsc:
    """FSC of half maps with a mask. Every curve is float64 [n // 2 + 1].

    Attributes:
        unmasked, masked: as measured.
        randomised: of masked maps whose phases were randomised from `randomised_from` on: what the mask alone makes.
        corrected: (masked - randomised) / (1 - randomised) from two shells further on, `masked` before.
        randomised_from: first shell with random phases (unmasked FSC below 0.8).
    """

    unmasked: Float64
    masked: Float64
    randomised: Float64
    corrected: Float64
    randomised_from: int

    def mask_makes_resolution(self, mask: npt.ArrayLike, tolerance: float = MASK_CORRELATION) -> bool:
        """Whether the mask itself correlates the halves, beyond chance: `mask_correlation` above `tolerance`."""
        return mask_correlation(self.unmasked, self.randomised, mask_share(mask)) > tolerance


def mask_share(mask: npt.ArrayLike) -> float:
    """Share of the noise that a mask lets through."""
    return float(np.clip(np.mean(np.asarray(mask, dtype=np.float64) ** 2), 1e-3, 1.0))


def mask_correlation(unmasked: Float64, randomised: Float64, share: float = 1.0) -> float:
    """Largest mean over three shells of the FSC of phase-randomised maps, from two shells after the randomisation on, where it is
    more than chance makes (3 standard deviations); 0 where there is none.

    share: of the box inside the mask; a shell of radius k has about 2 pi k^2 times it independent values.
    """
    low = np.flatnonzero(unmasked[1:] < 0.8)
    start = int(low[0]) + 1 if len(low) else len(unmasked) - 1
    first = min(start + 2, len(randomised) - 1)
    if len(randomised) - first < 3:
        return 0.0
    chance = 1 / (2 * np.pi * np.arange(first, len(randomised)) ** 2 * share)
    third = np.full(3, 1 / 3)
    means = np.convolve(randomised[first:], third, mode="valid")
    spread = np.sqrt(np.convolve(chance, third, mode="valid") / 3)
    return float(np.max(means[means > 3 * spread], initial=0.0))


def masked_fsc(
    half1: npt.ArrayLike,
    half2: npt.ArrayLike,
    mask: npt.ArrayLike,
    seed: int = 0,
    randomise_below: float = 0.8,
    threads: int = 1,
) -> MaskedFsc:
    """FSC inside a mask, corrected by phase randomisation (Chen et al. 2013, Ultramicroscopy 135, 24).

    Args:
        half1, half2: independent half maps [n, n, n].
        mask: [n, n, n], 0 to 1, with a soft edge.
        seed: of the random phases; the same seed gives the same curves.
        randomise_below: phases are random from the first shell at which the unmasked FSC is below this.
    """
    a, b, window = _check(half1), _check(half2), _check(mask)
    if not a.shape == b.shape == window.shape:
        raise InputError(f"half maps and mask differ in shape: {a.shape}, {b.shape}, {window.shape}")
    n = a.shape[0]
    whole_a, whole_b = rfftn(a, threads), rfftn(b, threads)
    unmasked = _correlate(whole_a, whole_b)
    low = np.flatnonzero(unmasked[1:] < randomise_below)
    start = int(low[0]) + 1 if len(low) else n // 2
    masked = _correlate(rfftn(a * window, threads), rfftn(b * window, threads))
    scrambled = [
        rfftn(
            irfftn(_randomise_phases(whole, n, start, np.random.default_rng([seed, half])), n, threads) * window,
            threads,
        )
        for half, whole in enumerate((whole_a, whole_b), 1)
    ]
    randomised = _correlate(scrambled[0], scrambled[1])
    corrected = masked.copy()
    beyond = np.arange(len(masked)) >= start + 2
    corrected[beyond] = ((masked - randomised) / np.maximum(1.0 - randomised, 1e-6))[beyond]
    return MaskedFsc(unmasked, masked, randomised, np.clip(corrected, -1.0, 1.0), start)


def _randomise_phases(transform: Complex64, n: int, start: int, rng: np.random.Generator) -> Complex64:
    """Replace the phases from shell `start` on by those of white noise, whose transform is Hermitian as it must be."""
    noise = rfftn(rng.standard_normal((n, n, n), dtype=np.float32))
    phases = noise / np.maximum(np.abs(noise), 1e-20)
    return np.where(shell_index_3d(n) >= start, np.abs(transform) * phases, transform).astype(np.complex64)


def spectral_snr(fsc: npt.ArrayLike, of: str = "whole") -> Float64:
    """Spectral signal-to-noise ratio from the FSC of two halves.

    Args:
        of: "whole" for the map from all data, 2 F / (1 - F), or "half" for each half, F / (1 - F).

    Returns:
        float64, 0 where the FSC is negative; at most that of FSC 0.9999 (no infinity).
    """
    factor = {"whole": 2.0, "half": 1.0}.get(of)
    if factor is None:
        raise InputError(f"of={of!r}: 'whole' or 'half' is needed")
    curve = np.clip(np.asarray(fsc, dtype=np.float64), 0.0, 0.9999)
    return factor * curve / (1.0 - curve)


def reference_correlation(fsc: npt.ArrayLike) -> Float64:
    """C_ref = sqrt(2 F / (1 + F)): correlation of the whole map with a perfect one (Rosenthal & Henderson 2003)."""
    curve = np.clip(np.asarray(fsc, dtype=np.float64), 0.0, 1.0)
    return np.sqrt(2.0 * curve / (1.0 + curve))


def fsc_table(fsc: npt.ArrayLike | MaskedFsc, n: int, pixel_size: float) -> pd.DataFrame:
    """Rows of an FSC table with RELION's labels, one per shell (kind "fsc").

    rlnAngstromResolution is 999 in shell 0, as RELION writes it. A `MaskedFsc` adds the four curves;
    rlnFourierShellCorrelation is then the corrected one.
    """
    shells = np.arange(n // 2 + 1)
    masked = fsc if isinstance(fsc, MaskedFsc) else None
    curve = masked.corrected if masked is not None else np.asarray(fsc, dtype=np.float64)
    if curve.shape != shells.shape:
        raise InputError(f"an FSC of {n // 2 + 1} shells is needed for side {n}, not {curve.shape}")
    columns: dict[str, npt.NDArray[np.generic]] = {
        "rlnSpectralIndex": shells,
        "rlnResolution": np.round(shells / (n * pixel_size), 6),
        "rlnAngstromResolution": np.round(n * pixel_size / np.maximum(shells, n * pixel_size / 999.0), 4),
        "rlnFourierShellCorrelation": np.round(curve, 6),
    }
    if masked is not None:
        columns |= {
            "rlnFourierShellCorrelationCorrected": np.round(masked.corrected, 6),
            "rlnFourierShellCorrelationUnmaskedMaps": np.round(masked.unmasked, 6),
            "rlnFourierShellCorrelationMaskedMaps": np.round(masked.masked, 6),
            "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": np.round(masked.randomised, 6),
        }
    return pd.DataFrame(columns)
