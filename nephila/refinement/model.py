"""What one iteration hands to the next besides the volumes: FSC, noise, groups, and the decision how to go on.

It is kept as a STAR file (`model.star`) with the blocks general, fsc, noise and groups, so that every number that steers the
refinement can be read.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.errors import InputError
from nephila.fsc import fsc_table
from nephila.io.tables import read_blocks, write_blocks
from nephila.refinement.certainty import Certainty
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
    """The line of an iteration in iterations.star. Resolutions in A (0: none), moves are medians, angles in degrees."""

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


@dataclass(frozen=True)
class RefinementModel:
    """State after an iteration.

    fsc: masked, corrected half-map FSC by shell; fsc_unmasked: without mask; noise: power of the noise by shell, in units of
    the images' transforms divided by the number of pixels; groups: a row per defocus group; certainty: what the last exhaustive
    search says about right and wrong poses; optics: noise and amplitude by optics group, where there are several samplings.
    """

    row: IterationRow
    next: Decision
    fsc: Float
    fsc_unmasked: Float
    noise: Float
    groups: pd.DataFrame = field(default_factory=pd.DataFrame)
    certainty: Certainty = field(default_factory=Certainty)
    optics: dict[int, OpticsState] = field(default_factory=dict)

    def passed_on(self, iteration: int) -> RefinementModel:
        """The model of an iteration that had nothing left to do."""
        return replace(self, row=replace(self.row, iteration=iteration, search="none"))


def iteration_table(models: list[RefinementModel]) -> pd.DataFrame:
    """iterations.star: a row per iteration."""
    rows = [{COLUMNS[key]: value for key, value in asdict(model.row).items()} for model in models]
    table = pd.DataFrame(rows)
    table["nphConverged"] = table["nphConverged"].astype(int)
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
    write_blocks(path, blocks, f"Refinement after iteration {model.row.iteration}")


def read_model(path: str | os.PathLike[str]) -> RefinementModel:
    """Read model.star. InputError where a block or column is missing."""
    blocks = read_blocks(path)
    missing = [name for name in ("general", "fsc", "noise") if name not in blocks]
    if missing:
        raise InputError(f"{path}: block data_{missing[0]} is missing; delete the file and run again")
    general = blocks["general"].iloc[0]
    for column in (*COLUMNS.values(), *DECISION_COLUMNS.values(), *CERTAINTY_COLUMNS.values()):
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
    return RefinementModel(
        IterationRow(**typed_row),
        Decision(**typed_decision),
        blocks["fsc"]["rlnFourierShellCorrelation"].to_numpy(dtype=float),
        blocks["fsc"]["nphFscUnmasked"].to_numpy(dtype=float),
        blocks["noise"]["nphNoisePower"].to_numpy(dtype=float),
        blocks.get("groups", pd.DataFrame()),
        Certainty(**{key: float(general[column]) for key, column in CERTAINTY_COLUMNS.items()}),
        states,
    )


def _like(value: object, example: object) -> object:
    """`value` as the type of `example`."""
    if isinstance(example, bool):
        return bool(int(str(value)))
    return type(example)(value)  # type: ignore[call-arg]
