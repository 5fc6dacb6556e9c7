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

    Lengths in A, angles in degrees. `search_range_deg` 0 searches everywhere; step and range count only where `schedule` is
    "lists" (in iterations of small angles they are those of `small_angle_…`), otherwise the model that the last iteration left
    decides. `shift_step` None: as the coarse band asks; `filter_…`: as `reference_filter.reference_filters`. `changed`: settings
    of the configuration's `changes` hold from this iteration on, so that a refinement that had converged goes on; `start_again`:
    with an exhaustive search.
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
    shift_step: float | None = None
    filter: Literal["wiener", "butterworth"] = "wiener"
    filter_stop: float = 0.15
    filter_at_most: float = 0.4
    view_cap: float | None = None


def at_iteration(values: Sequence[T], iteration: int) -> T:
    """Entry of a per-iteration list; the last one repeats. `iteration` counts from 1."""
    return values[min(iteration, len(values)) - 1]


def iteration_settings(config: Config, iteration: int) -> dict[str, Any]:
    """IterationSettings of an iteration (from 1) as a plain dict, for a job's params."""
    refinement, particle = config.refinement, config.particle
    changed = changed_settings(config, iteration)

    def of(name: str) -> Any:
        """A key of the section `refinement` in this iteration: what `changes` say, else its own value or entry of a list."""
        if name in changed:
            return changed[name]
        value = getattr(refinement, name)
        return at_iteration(value, iteration) if isinstance(value, list) else value

    step, search_range = 0.0, 0.0
    if of("schedule") == "lists":  # otherwise the lists say nothing, and editing them reruns nothing
        step, search_range = of("angular_step_deg"), of("search_range_deg")
        if of("small_angle"):
            step, search_range = refinement.small_angle_step_deg, refinement.small_angle_range_deg
    bands: dict[str, float] = {}
    if of("filter") == "butterworth":  # to the other filter they say nothing
        bands = {"filter_stop": refinement.filter_stop, "filter_at_most": refinement.filter_at_most}
    mask = refinement.mask.model_copy(update=changed.get("mask", {}))
    return asdict(
        IterationSettings(
            iteration=iteration,
            pixel_size=config.pixel_size,
            box=config.box,
            diameter=particle.diameter,
            symmetry=changed.get("symmetry", particle.symmetry),
            seed=config.project.seed,
            search=changed.get("search", config.alignment.search),
            schedule=of("schedule"),
            angular_step_deg=step,
            search_range_deg=search_range,
            shift_range=of("shift_range"),
            shift_step=config.alignment.shift_step,
            halves=of("halves"),
            ctf=of("ctf"),
            snr=of("snr"),
            join_resolution=of("join_resolution"),
            start_resolution=config.reference.resolution,
            centre=of("centre"),
            filter=of("filter"),
            **bands,
            mask_file=mask.file,
            mask_shape=mask.shape,
            mask_edge=mask.edge,
            mask_diameter=mask.diameter or 1.1 * particle.diameter,
            view_cap=of("view_cap"),
            changed=changed.get("changed", False),
            start_again=changed.get("start_again", False),
        )
    )


def enhances(config: Config, iteration: int) -> bool:
    """Whether the references of an iteration have their amplitudes enhanced."""
    return bool(changed_settings(config, iteration).get("enhance", at_iteration(config.refinement.enhance, iteration)))


def changed_settings(config: Config, iteration: int) -> dict[str, Any]:
    """What the configuration's `changes` say for an iteration: of several that set a key, the latest."""
    values: dict[str, Any] = {}
    for change in sorted(config.refinement.changes, key=lambda item: item.from_iteration):
        if change.from_iteration > iteration:
            break
        given = change.model_dump(exclude_none=True, exclude={"from_iteration", "start_again", "mask"})
        begins = change.from_iteration == iteration
        if change.mask is not None:  # an empty key of the mask is a value: no file
            given["mask"] = values.get("mask", {}) | change.mask.model_dump(exclude_unset=True)
        again = begins and (change.start_again or values.get("start_again", False))
        values |= given | {"changed": begins, "start_again": again}
    return values
