"""Settings of one refinement iteration, as the configuration gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from nephila.config import Config

T = TypeVar("T")


@dataclass(frozen=True)
class IterationSettings:
    """What an iteration needs to know besides data.

    Lengths in A, angles in degrees. `search_range_deg` 0 searches everywhere; the three lists' values and `small_angle` count
    only where `schedule` is "lists", otherwise the model that the last iteration left decides. `changed`: settings of the
    configuration's `changes` hold from this iteration on, so that a refinement that had converged goes on; `start_again`: with
    an exhaustive search.
    """

    iteration: int
    pixel_size: float
    box: int
    diameter: float
    symmetry: str
    seed: int
    search: Literal["continuous", "grid"]
    schedule: Literal["auto", "lists"]
    angular_step_deg: float
    search_range_deg: float
    shift_range: float
    small_angle: bool
    halves: Literal["independent", "shared"]
    ctf: Literal["group", "particle"]
    snr: float | None
    join_resolution: float
    start_resolution: float
    centre: bool
    mask_file: str | None
    mask_edge: float
    mask_diameter: float
    changed: bool = False
    start_again: bool = False
    mask_shape: Literal["sphere", "auto"] = "sphere"


def at_iteration(values: Sequence[T], iteration: int) -> T:
    """Entry of a per-iteration list; the last one repeats. `iteration` counts from 1."""
    return values[min(iteration, len(values)) - 1]


def iteration_settings(config: Config, iteration: int) -> dict[str, Any]:
    """IterationSettings of an iteration (from 1) as a plain dict, for a job's params."""
    refinement, particle = config.refinement, config.particle
    listed = refinement.schedule == "lists"  # otherwise the lists say nothing, and editing them reruns nothing
    settings = asdict(
        IterationSettings(
            iteration=iteration,
            pixel_size=config.pixel_size,
            box=config.box,
            diameter=particle.diameter,
            symmetry=particle.symmetry,
            seed=config.project.seed,
            search=config.alignment.search,
            schedule=refinement.schedule,
            angular_step_deg=at_iteration(refinement.angular_step_deg, iteration) if listed else 0.0,
            search_range_deg=at_iteration(refinement.search_range_deg, iteration) if listed else 0.0,
            shift_range=at_iteration(refinement.shift_range, iteration),
            small_angle=listed and at_iteration(refinement.small_angle, iteration),
            halves=refinement.halves,
            ctf=refinement.ctf,
            snr=refinement.snr,
            join_resolution=refinement.join_resolution,
            start_resolution=config.reference.resolution,
            centre=refinement.centre,
            mask_file=refinement.mask.file,
            mask_shape=refinement.mask.shape,
            mask_edge=refinement.mask.edge,
            mask_diameter=refinement.mask.diameter or 1.1 * particle.diameter,
        )
    )
    return settings | changed_settings(config, iteration)


def changed_settings(config: Config, iteration: int) -> dict[str, Any]:
    """What the configuration's `changes` say for an iteration: of several that set a key, the latest."""
    values: dict[str, Any] = {}
    for change in sorted(config.refinement.changes, key=lambda item: item.from_iteration):
        if change.from_iteration > iteration:
            break
        given = change.model_dump(exclude_none=True, exclude={"from_iteration", "start_again"})
        begins = change.from_iteration == iteration
        values |= given | {"changed": begins, "start_again": begins and change.start_again}
    return values
