"""Pictures by which a person judges a CTF fit: half measured, half fitted spectrum, and the profile with the fit."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates

from nephila.defocus.model import ring_contrast, ring_phase, smooth_level
from nephila.defocus.settings import DefocusFit
from nephila.io.atomic import atomic_path
from nephila.spectra import MicrographSpectrum

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def powchk(spectrum: MicrographSpectrum, fit: DefocusFit, resolution: float | None = None) -> tuple[Float32, float]:
    """SPIDER's and CTFFIND's check: left half measured, right half fitted.

    The measured half is averaged along arcs of 7.5 degrees, freed of background, scaled to unit deviation at each radius;
    the fitted half shows CTF^2 alike; values are within -2.5 to 2.5, low frequencies blank. Cut at `resolution` (A; by default 5).
    A failed fit shows the measured spectrum on both sides. Returns the image [side, side], origin at side // 2, and the
    resolution (A) at the middle of its edges.
    """
    length = spectrum.tile_px * spectrum.pixel_size
    radii = spectrum.samples.shape[1]
    top = 1 / resolution if resolution else min(0.2, fit.profile.frequency[-1] if fit.profile is not None else 0.2)
    limit = int(np.clip(round(top * length), 8, radii - 2))
    low = min(_first_radius(spectrum, fit), limit - 2)
    y, x = np.mgrid[-limit : limit + 1, -limit : limit + 1].astype(np.float64)
    radius = np.hypot(y, x)
    index = np.minimum(np.rint(radius).astype(np.int64), radii - 1)
    measured = _along_arcs(spectrum, _smooth_power(spectrum, fit, low), np.arctan2(y, x), radius)
    weight = (radius >= low) & (radius < radii - 1)
    scale = np.sqrt(
        np.bincount(index.ravel(), (measured**2 * weight).ravel())
        / np.maximum(np.bincount(index.ravel(), weight.ravel()), 1)
    )
    scale = np.maximum(gaussian_filter(scale, 6.0), 1e-6)
    picture = measured / scale[index]
    if not fit.failed and fit.profile is not None and fit.optics is not None:
        picture[x > 0] = 1.6 * _fitted_rings(x / length, y / length, fit, length)[x > 0]
    picture[radius < low] = 0
    return np.clip(picture, -2.5, 2.5).astype(np.float32), float(length / limit)


def _along_arcs(spectrum: MicrographSpectrum, smooth: Float64, theta: Float64, radius: Float64) -> Float64:
    """Measured power over smooth power - 1, interpolated between sectors and radii."""
    empty = spectrum.samples == 0
    relative = np.where(empty, 0.0, spectrum.sector_mean / smooth - 1)
    sectors, radii = relative.shape
    extended = np.vstack([relative, relative[:1]])
    rows, columns = (theta % np.pi) / np.pi * sectors, np.minimum(radius, radii - 1)
    return np.asarray(map_coordinates(extended, [rows, columns], order=1, mode="nearest"))


def _first_radius(spectrum: MicrographSpectrum, fit: DefocusFit) -> int:
    start = fit.profile.frequency[0] if fit.profile is not None else 1 / 30.0
    return max(4, round(float(start) * spectrum.tile_px * spectrum.pixel_size))


def _smooth_power(spectrum: MicrographSpectrum, fit: DefocusFit, low: int) -> Float64:
    """Power without rings at each radius: background + envelope / 2 of the fit, or a smooth curve."""
    roo = spectrum.roo
    if fit.profile is not None:
        first = round(float(fit.profile.frequency[0]) * spectrum.tile_px * spectrum.pixel_size)
        middle = fit.profile.background + 0.5 * fit.profile.envelope
        curve = np.full(len(roo), np.maximum(middle[-1], 1e-30))
        curve[:first] = np.maximum(middle[0], 1e-30)
        curve[first : first + len(middle)] = np.maximum(middle, 1e-30)
        return curve
    s = np.arange(len(roo), dtype=np.float64)
    curve = np.maximum(roo, 1e-30)
    if len(roo) - low > 12:
        curve[low:] = smooth_level(s[low:], np.maximum(roo[low:], 1e-30), spectrum.samples.sum(axis=0)[low:])
    return np.asarray(curve)


def _fitted_rings(kx: Float64, ky: Float64, fit: DefocusFit, length: float) -> Float64:
    """2 CTF^2 - 1 on a grid of frequencies (1/A), damped by the taper."""
    assert fit.optics is not None
    k2 = kx**2 + ky**2
    safe = np.where(k2 == 0, 1.0, k2)
    cos2, sin2 = (kx**2 - ky**2) / safe, 2 * kx * ky / safe
    turn = 2 * np.deg2rad(fit.angle_deg)
    local = fit.defocus + 0.5 * fit.astigmatism * (cos2 * np.cos(turn) + sin2 * np.sin(turn))
    optics = replace(fit.optics, phase_shift_deg=fit.phase_shift_deg)
    return -ring_contrast(k2, cos2, length, local, optics) * np.cos(2 * ring_phase(k2, local, optics))


def profile_curves(fit: DefocusFit) -> dict[str, Float64]:
    """The profile for plotting, each [radii]: frequency (1/A), measured and fitted rings relative to the smooth power (0: no ring),
    and the local correlation `quality`. Empty where the fit failed before there was one."""
    if fit.profile is None:
        return {name: np.zeros(0) for name in ("frequency", "measured", "fitted", "quality")}
    profile = fit.profile
    middle = np.maximum(profile.background + 0.5 * profile.envelope, 1e-30)
    return {
        "frequency": profile.frequency,
        "measured": profile.measured / middle - 1,
        "fitted": (profile.background + profile.envelope * profile.ctf2) / middle - 1,
        "quality": profile.quality,
    }


def ctf_figure(spectrum: MicrographSpectrum, fit: DefocusFit, path: str | os.PathLike[str], title: str = "") -> None:
    """Draw powchk and profile into an image file (by suffix: PNG, PDF, SVG)."""
    picture, edge = powchk(spectrum, fit)
    label = "measured" if fit.failed else "left measured, right fitted"
    figure, rings, quality = check_figure(picture, f"{label}; edge {edge:.1f} A", f"{title}  {describe(fit)}".strip())
    _draw_profile(rings, quality, spectrum, fit)
    save_figure(figure, path)


def check_figure(picture: Float32, label: str, title: str) -> tuple[Any, Any, Any]:
    """A figure with a spectrum (values -2 to 2) on the left, and the axes for its profile and for the local correlation.

    The places are fixed, so that the report can cut the spectrum out (`SPECTRUM_PART` there).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=100)
    FigureCanvasAgg(figure)
    left = figure.add_axes((0.02, 0.1, 0.37, 0.37 * 10 / 4.2))
    left.imshow(picture, cmap="gray", vmin=-2, vmax=2, interpolation="nearest", origin="lower")
    left.set_xticks([])
    left.set_yticks([])
    left.set_xlabel(label)
    rings, quality = figure.add_axes((0.49, 0.4, 0.49, 0.49)), figure.add_axes((0.49, 0.12, 0.49, 0.2))
    figure.text(0.49, 0.925, title, fontsize=9)
    return figure, rings, quality


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure in one step, the same bytes each time."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None} if str(path).endswith(".png") else None)


def describe(fit: DefocusFit) -> str:
    """The fit in one line."""
    if fit.failed:
        return f"no fit: {fit.reason}"
    text = f"{fit.defocus_u:.0f} / {fit.defocus_v:.0f} A at {fit.angle_deg:.0f} deg (+-{fit.mean_error:.0f} A)"
    if fit.phase_shift_deg:
        text += f", phase shift {fit.phase_shift_deg:.0f} deg"
    return f"{text}, rings to {fit.resolution:.1f} A, merit {fit.figure_of_merit:.2f}"


def _draw_profile(rings: Any, quality: Any, spectrum: MicrographSpectrum, fit: DefocusFit) -> None:
    if fit.profile is None:
        rings.semilogy(spectrum.frequency[4:], np.maximum(spectrum.roo[4:], 1e-30), color="0.3", lw=1)
        rings.set_ylabel("rotational average")
        rings.set_xlabel("spatial frequency, 1/A")
        quality.set_visible(False)
        return
    draw_curves(rings, quality, profile_curves(fit), fit.resolution)


def draw_curves(rings: Any, quality: Any, curves: dict[str, Float64], resolution: float | None) -> None:
    """Rings and their local correlation (`profile_curves`); resolution: A, where the rings end."""
    rings.plot(curves["frequency"], curves["measured"], color="0.3", lw=1, label="measured, at equal phase")
    rings.plot(curves["frequency"], curves["fitted"], color="tab:red", lw=1, label="fitted")
    limit = 1.4 * max(float(np.abs(curves["fitted"]).max()), 1e-3)
    rings.set_ylim(-limit, limit)
    rings.set_ylabel("rings / smooth power")
    rings.legend(fontsize=8, loc="upper right")
    quality.set_xlabel("spatial frequency, 1/A")
    quality.plot(curves["frequency"], curves["quality"], color="tab:blue", lw=0.8)
    quality.set_ylim(-0.3, 1.05)
    quality.set_ylabel("correlation")
    for axes in (rings, quality):
        if resolution:
            axes.axvline(1 / resolution, color="tab:green", lw=0.8, ls="--")
        axes.set_xlim(0, float(curves["frequency"][-1]) * 1.01)
