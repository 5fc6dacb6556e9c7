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
    of the configuration's `changes`, or other entries of the lists, hold from this iteration on, so that a refinement that had
    converged goes on; `start_again`: with an exhaustive search.
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
        return value_at(config, name, iteration)

    step, search_range = listed_search(config, iteration)
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
            changed=changed.get("changed", False) or lists_change(config, iteration),
            start_again=changed.get("start_again", False),
        )
    )


def value_at(config: Config, name: str, iteration: int) -> Any:
    """A key of the section `refinement` in an iteration: what `changes` say, else its own value or entry of a list."""
    changed = changed_settings(config, iteration)
    if name in changed:
        return changed[name]
    value = getattr(config.refinement, name)
    return at_iteration(value, iteration) if isinstance(value, list) else value


def listed_search(config: Config, iteration: int) -> tuple[float, float]:
    """Step and range of an iteration's search, degrees; 0 where the lists say nothing, so that editing them reruns nothing."""
    if value_at(config, "schedule", iteration) != "lists":
        return 0.0, 0.0
    if value_at(config, "small_angle", iteration):
        return config.refinement.small_angle_step_deg, config.refinement.small_angle_range_deg
    return value_at(config, "angular_step_deg", iteration), value_at(config, "search_range_deg", iteration)


def lists_change(config: Config, iteration: int) -> bool:
    """Whether entries of the lists differ from those before, so that an iteration is due even where the last one found no move."""
    if iteration == 1:
        return False
    now, before = ((listed_search(config, i), value_at(config, "enhance", i)) for i in (iteration, iteration - 1))
    return now != before and value_at(config, "schedule", iteration) == "lists"


def enhances(config: Config, iteration: int) -> bool:
    """Whether the references of an iteration have their amplitudes enhanced."""
    return bool(value_at(config, "enhance", iteration))


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
