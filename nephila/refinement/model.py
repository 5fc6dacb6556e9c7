"""What one iteration hands to the next besides the volumes: FSC, noise, groups, and the decision how to go on.

It is kept as a STAR file (`model.star`) with the blocks general, fsc, noise and groups, so that every number that steers the
refinement can be read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.fsc import fsc_table
from nephila.io.tables import read_blocks, write_blocks
from nephila.refinement.certainty import Certainty
from nephila.refinement.levels import Amplitudes, noise_levels, with_levels
from nephila.sampling import AMPLITUDE, OpticsState

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """How the next iteration searches.

    search: exhaustive (all directions), local (around the last pose); angular_step_deg: step of its grid;
    search_range_deg: for local; shift_range: A; band: finest shell (Fourier px) that alignment uses.
    """

    search: Literal["exhaustive", "local"] = "exhaustive"
    angular_step_deg: float = 10.0
    search_range_deg: float = 0.0
    shift_range: float = 16.0
    band: int = 0


@dataclass(frozen=True)
class IterationRow:
    """The line of an iteration in iterations.star. Resolutions in A (0: none), moves are medians (`mean_shift`, A, is the mean),
    angles in degrees; correlation gained and lost: mean over all particles of what it rose, and of what it fell."""

    iteration: int = 0
    search: str = "start"
    converged: bool = False
    particles: int = 0
    resolution_0143: float = 0.0
    resolution_05: float = 0.0
    resolution_unmasked: float = 0.0
    angular_step_deg: float = 0.0
    moved_deg: float = 0.0
    moved_angst: float = 0.0
    share_moved: float = 1.0
    correlation: float = 0.0
    share_correlation_up: float = 0.0
    exhaustive_passes: int = 0
    local_passes: int = 0
    mean_shift: float = 0.0
    share_correlation_down: float = 0.0
    correlation_gained: float = 0.0
    correlation_lost: float = 0.0
    mask_suspect: bool = False


COLUMNS = {
    "iteration": "nphIteration",
    "search": "nphSearch",
    "converged": "nphConverged",
    "particles": "nphParticles",
    "resolution_0143": "nphResolution",
    "resolution_05": "nphResolutionHalf",
    "resolution_unmasked": "nphResolutionUnmasked",
    "angular_step_deg": "nphAngularStep",
    "moved_deg": "nphMovedAngle",
    "moved_angst": "nphMovedAngst",
    "share_moved": "nphShareMoved",
    "correlation": "nphCorrelation",
    "share_correlation_up": "nphShareCorrelationUp",
    "exhaustive_passes": "nphExhaustivePasses",
    "local_passes": "nphLocalPasses",
    "mean_shift": "nphMeanShift",
    "share_correlation_down": "nphShareCorrelationDown",
    "correlation_gained": "nphCorrelationGained",
    "correlation_lost": "nphCorrelationLost",
    "mask_suspect": "nphMaskSuspect",
}
DECISION_COLUMNS = {
    "search": "nphNextSearch",
    "angular_step_deg": "nphNextAngularStep",
    "search_range_deg": "nphNextSearchRange",
    "shift_range": "nphNextShiftRange",
    "band": "nphNextBand",
}
CERTAINTY_COLUMNS = {
    "share_right": "nphShareRight",
    "wrong_mean": "nphWrongMean",
    "wrong_deviation": "nphWrongDeviation",
    "right_mean": "nphRightMean",
    "right_deviation": "nphRightDeviation",
}
AMPLITUDE_COLUMNS = {"mean": "nphScaleMean", "deviation": "nphScaleDeviation"}
NEEDED = tuple(
    name for columns in (COLUMNS, DECISION_COLUMNS, CERTAINTY_COLUMNS, AMPLITUDE_COLUMNS) for name in columns.values()
)


@dataclass(frozen=True)
class RefinementModel:
    """State after an iteration.

    fsc: masked, corrected half-map FSC by shell; fsc_unmasked: without mask; noise: power of the noise by shell, in units of
    the images' transforms divided by the number of pixels; groups: a row per defocus group; certainty: what the last exhaustive
    search says about right and wrong poses; optics: noise and amplitude by optics group, where there are several samplings;
    group_factors: noise spectrum of defocus groups over that of all; levels: noise power of micrographs over their group's;
    amplitudes: of the particles; views: weight by bin of view (empty: no cap).
    """

    row: IterationRow
    next: Decision
    fsc: Float
    fsc_unmasked: Float
    noise: Float
    groups: pd.DataFrame = field(default_factory=pd.DataFrame)
    certainty: Certainty = field(default_factory=Certainty)
    optics: dict[int, OpticsState] = field(default_factory=dict)
    group_factors: dict[int, Float] = field(default_factory=dict)
    levels: dict[str, float] = field(default_factory=dict)
    amplitudes: Amplitudes = field(default_factory=Amplitudes)
    views: Float = field(default_factory=lambda: np.zeros(0))

    def entering(self, particles: pd.DataFrame) -> pd.DataFrame:
        """Particles with what this model says about the noise, amplitude and view with which they enter sums."""
        return with_levels(particles, self.levels, self.amplitudes, self.views) if len(particles) else particles

    def noise_levels(self, particles: pd.DataFrame) -> Float:
        """Noise power of each particle over the overall spectrum, [m], within the band of the next alignment."""
        return noise_levels(particles, self.group_factors, self.levels, self.next.band)

    def passed_on(self, iteration: int) -> RefinementModel:
        """The model of an iteration that had nothing left to do."""
        return replace(self, row=replace(self.row, iteration=iteration, search="none"))


def iteration_table(models: list[RefinementModel]) -> pd.DataFrame:
    """iterations.star: a row per iteration."""
    rows = [{COLUMNS[key]: value for key, value in asdict(model.row).items()} for model in models]
    table = pd.DataFrame(rows)
    flags = ["nphConverged", "nphMaskSuspect"]
    table[flags] = table[flags].astype(int)
    return table


def resolution_columns(iterations: pd.DataFrame) -> pd.DataFrame:
    """Resolutions by iteration for plotting; iterations that had nothing to do are left out."""
    table = iterations[iterations["nphSearch"] != "none"]
    return pd.DataFrame(
        {
            "iteration": table["nphIteration"],
            "half maps at 0.143": table["nphResolution"].replace(0.0, np.nan),
            "half maps at 0.5": table["nphResolutionHalf"].replace(0.0, np.nan),
        }
    )


def write_model(path: str | os.PathLike[str], model: RefinementModel, pixel_size: float, box: int) -> None:
    """Write model.star."""
    general = iteration_table([model])
    for key, value in asdict(model.next).items():
        general[DECISION_COLUMNS[key]] = value
    for key, value in asdict(model.certainty).items():
        general[CERTAINTY_COLUMNS[key]] = value
    for key, value in asdict(model.amplitudes).items():
        general[AMPLITUDE_COLUMNS[key]] = value
    blocks = {
        "general": general,
        "fsc": fsc_table(model.fsc, box, pixel_size).assign(nphFscUnmasked=model.fsc_unmasked),
        "noise": pd.DataFrame({"rlnSpectralIndex": np.arange(len(model.noise)), "nphNoisePower": model.noise}),
    }
    if len(model.groups):
        blocks["groups"] = model.groups
    if model.optics:
        amplitudes = [state.amplitude for state in model.optics.values()]
        blocks["optics"] = pd.DataFrame({"rlnOpticsGroup": list(model.optics), AMPLITUDE: amplitudes})
    for number, state in model.optics.items():
        shells = np.arange(len(state.noise))
        blocks[f"noise_{number}"] = pd.DataFrame({"rlnSpectralIndex": shells, "nphNoisePower": state.noise})
    blocks |= level_blocks(model)
    write_blocks(path, blocks, f"Refinement after iteration {model.row.iteration}")


def level_blocks(model: RefinementModel) -> dict[str, pd.DataFrame]:
    """What groups, micrographs and views differ in, as blocks of model.star; those that say nothing are left out."""
    blocks = {}
    if model.group_factors:
        blocks["group_noise"] = pd.concat(
            [
                pd.DataFrame(
                    {"nphDefocusGroup": number, "rlnSpectralIndex": np.arange(len(curve)), "nphNoiseFactor": curve}
                )
                for number, curve in model.group_factors.items()
            ],
            ignore_index=True,
        )
    if model.levels:
        blocks["micrographs"] = pd.DataFrame(
            {"rlnMicrographName": list(model.levels), "nphNoiseLevel": list(model.levels.values())}
        )
    if len(model.views):
        blocks["views"] = pd.DataFrame({"nphViewBin": np.arange(len(model.views)), "nphViewWeight": model.views})
    return blocks


def read_levels(blocks: Mapping[str, pd.DataFrame]) -> tuple[dict[int, Float], dict[str, float], Float]:
    """The reverse of `level_blocks`: factors by group, levels by micrograph, weights of views."""
    factors, levels, views = {}, {}, np.zeros(0)
    if "group_noise" in blocks:
        for number, rows in blocks["group_noise"].groupby("nphDefocusGroup"):
            factors[int(str(number))] = rows["nphNoiseFactor"].to_numpy(dtype=float)
    if "micrographs" in blocks:
        table = blocks["micrographs"]
        levels = dict(zip(table["rlnMicrographName"].astype(str), table["nphNoiseLevel"].astype(float), strict=True))
    if "views" in blocks:
        views = blocks["views"]["nphViewWeight"].to_numpy(dtype=float)
    return factors, levels, views


def read_model(path: str | os.PathLike[str]) -> RefinementModel:
    """Read model.star. InputError where a block or column is missing."""
    blocks = read_blocks(path)
    missing = [name for name in ("general", "fsc", "noise") if name not in blocks]
    if missing:
        raise InputError(f"{path}: block data_{missing[0]} is missing; delete the file and run again")
    general = blocks["general"].iloc[0]
    for column in NEEDED:
        if column not in general:
            raise InputError(
                f"{path}: column {column} is missing, as in files of another version; delete the file and run again"
            )
    row = {key: general[column] for key, column in COLUMNS.items()}
    decision = {key: general[column] for key, column in DECISION_COLUMNS.items()}
    # STAR knows no types: each value takes that of its field's default
    typed_row: dict[str, Any] = {key: _like(value, getattr(IterationRow, key)) for key, value in row.items()}
    typed_decision: dict[str, Any] = {key: _like(value, getattr(Decision, key)) for key, value in decision.items()}
    states = {}
    for _, entry in blocks.get("optics", pd.DataFrame()).iterrows():
        number = int(entry["rlnOpticsGroup"])
        noise = blocks[f"noise_{number}"]["nphNoisePower"].to_numpy(dtype=float)
        states[number] = OpticsState(noise, float(entry[AMPLITUDE]))
    factors, levels, views = read_levels(blocks)
    return RefinementModel(
        IterationRow(**typed_row),
        Decision(**typed_decision),
        blocks["fsc"]["rlnFourierShellCorrelation"].to_numpy(dtype=float),
        blocks["fsc"]["nphFscUnmasked"].to_numpy(dtype=float),
        blocks["noise"]["nphNoisePower"].to_numpy(dtype=float),
        blocks.get("groups", pd.DataFrame()),
        Certainty(**{key: float(general[column]) for key, column in CERTAINTY_COLUMNS.items()}),
        states,
        factors,
        levels,
        Amplitudes(**{key: float(general[column]) for key, column in AMPLITUDE_COLUMNS.items()}),
        views,
    )


def _like(value: object, example: object) -> object:
    """`value` as the type of `example`."""
    if isinstance(example, bool):
        return bool(int(str(value)))
    return type(example)(value)  # type: ignore[call-arg]
