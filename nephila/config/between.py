"""What no single key of the configuration can know: each message names the keys and what would be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nephila.errors import InputError
from nephila.fast_sides import good_box
from nephila.symmetry import parse_point_group

if TYPE_CHECKING:
    from nephila.config.refinement import RefinementChange
    from nephila.config.sections import Config


def problems_between_sections(config: Config) -> list[str]:
    """Contradictions between keys, one line each."""
    parts = (_particle, _input, _ctf, _reference, _refinement, _jobs)
    return [problem for part in parts for problem in part(config)]


def _jobs(config: Config) -> list[str]:
    if config.jobs.lean and config.jobs.keep_intermediate:
        return ["jobs.lean: true contradicts jobs.keep_intermediate: true; choose one"]
    return []


def _particle(config: Config) -> list[str]:
    """Symmetry, box and diameter, and resolutions beyond Nyquist."""
    problems = []
    nyquist, size = 2 * config.pixel_size, config.particle.diameter / config.pixel_size
    try:
        parse_point_group(config.particle.symmetry)
    except InputError as error:
        problems.append(f"particle.symmetry: {error}")
    if config.box % 2:
        problems.append(f"particle.box: {config.box} is odd; use {config.box + 1}")
    if config.box < size:
        problems.append(
            f"particle.box: {config.box} px are {config.box * config.pixel_size:.0f} A, less than the particle's diameter of "
            f"{config.particle.diameter:g} A; use {good_box(1.5 * size)}"
        )
    limits = {"reference.resolution": config.reference.resolution}
    if config.reference.initial.resolution is not None:
        limits["reference.initial.resolution"] = config.reference.initial.resolution
    joins = {"refinement": config.refinement.join_resolution}
    joins |= {key: change.join_resolution or 0.0 for key, change in _changes(config).items()}
    limits |= {f"{key}.join_resolution": value for key, value in joins.items() if value}
    if config.classes.count > 1:
        limits["classes.resolution"] = config.classes.resolution
    if config.defocus_groups.method == "optimal":
        limits["defocus_groups.resolution"] = config.defocus_groups.resolution
    for key, value in limits.items():
        if value < nyquist:
            problems.append(f"{key}: {value:g} A is finer than Nyquist ({nyquist:g} A at {config.pixel_size:g} A/px)")
    if size < 10:
        problems.append(
            f"particle.diameter: {config.particle.diameter:g} A are {size:.1f} px of {config.pixel_size:g} A in the windows; "
            "at least 10 are needed: correct the diameter or input.pixel_size, or bin less"
        )
    return problems


def _input(config: Config) -> list[str]:
    """What given particles allow."""
    problems = []
    if config.particles.bin != 1 and config.input.particles:
        problems.append(
            f"particles.bin: {config.particles.bin:g} is for windows cut from micrographs; given particles keep their sampling: "
            "leave it at 1"
        )
    if config.input.optics_groups == "several":
        if not config.input.particles:
            problems.append(
                "input.optics_groups: several is for particles (input.particles); run micrographs of each pixel size to their "
                "own windows, and give the particles.star of these runs as a list"
            )
        if config.classes.count > 1:
            problems.append(
                "classes.count: classes take particles of one pixel size and box; set input.optics_groups: one"
            )
    return problems


def _ctf(config: Config) -> list[str]:
    """Ranges of the fit, imports, local fits."""
    problems = []
    ctf_nyquist = 2 * config.micrograph_pixel_size
    finest = 10.0 if config.ctf.max_resolution == "auto" else config.ctf.max_resolution
    if config.ctf.min_resolution <= max(finest, ctf_nyquist):
        problems.append(
            f"ctf.min_resolution: {config.ctf.min_resolution:g} A must be coarser than max_resolution "
            f"({finest:g} A) and Nyquist ({ctf_nyquist:g} A)"
        )
    if (config.ctf.method == "import") != (config.ctf.import_from is not None):
        problems.append(
            "ctf.import_from and ctf.method: import belong together; give both, or neither"
            + (f" (import_from is {config.ctf.import_from!r})" if config.ctf.import_from else "")
        )
    elif (
        config.ctf.import_from
        and not config.ctf.import_from.endswith(".star")
        and config.ctf.import_from.count("*") != 1
    ):
        problems.append(
            f"ctf.import_from: {config.ctf.import_from!r} is neither a table (.star) nor a pattern with one *, which stands "
            "for the micrograph's name"
        )
    if config.ctf.local != "none" and not config.ctf.method.startswith("ctffind"):
        problems.append(
            f"ctf.local: {config.ctf.local} needs ctf.method: ctffind or ctffind_pooled (it is {config.ctf.method})"
        )
    if config.ctf.min_defocus >= config.ctf.max_defocus:
        problems.append(
            f"ctf.min_defocus: {config.ctf.min_defocus:g} A must be below max_defocus ({config.ctf.max_defocus:g} A)"
        )
    return problems


def _reference(config: Config) -> list[str]:
    """What needs a given volume."""
    problems = []
    if not config.reference.volume and config.reference.pixel_size:
        problems.append(
            "reference.pixel_size: belongs to reference.volume, which is empty; leave both empty, or give both"
        )
    if not config.reference.volume and config.input.optics_groups == "several":
        problems.append(
            "reference.volume: empty, but an initial model needs particles of one sampling (input.optics_groups: several); "
            "give a volume"
        )
    if not config.reference.volume and config.picks_by_reference:
        problems.append(
            "reference.volume: empty, but picking.method: lfc_pick picks by projections of it; give a volume, or set "
            "picking.method: pick"
        )
    return problems


def _changes(config: Config) -> dict[str, RefinementChange]:
    """The refinement's changes by their key."""
    return {f"refinement.changes.{i}": change for i, change in enumerate(config.refinement.changes)}


def _change(config: Config, key: str, change: RefinementChange) -> list[str]:
    """What a change of settings may not say, or would say in vain."""
    problems = []
    if change.symmetry is not None:
        try:
            parse_point_group(change.symmetry)
        except InputError as error:
            problems.append(f"{key}.symmetry: {error}")
    if change.from_iteration > config.refinement.iterations:
        problems.append(
            f"{key}.from_iteration: {change.from_iteration} is beyond the last iteration; raise refinement.iterations "
            f"({config.refinement.iterations})"
        )
    if change.enhance and not config.refinement.scattering:
        problems.append(f"{key}.enhance: needs refinement.scattering, the table of scattering amplitudes")
    for name in ("angular_step_deg", "search_range_deg", "small_angle"):
        if getattr(change, name) is not None and not _lists_follow(config, change):
            problems.append(f"{key}.{name}: says nothing to schedule: auto; set schedule: lists in this change")
    return problems


def _lists_follow(config: Config, change: RefinementChange) -> bool:
    """Whether an iteration from this change on goes by lists."""
    schedule = config.refinement.schedule
    later = []
    for other in sorted(config.refinement.changes, key=lambda item: item.from_iteration):
        if other.from_iteration <= change.from_iteration:
            schedule = other.schedule or schedule
        else:
            later.append(other.schedule)
    return "lists" in (schedule, *later)


def _refinement(config: Config) -> list[str]:
    """Solving, enhancement and classes."""
    problems = []
    if config.reconstruction.method == "direct" and config.reconstruction.snr is None:
        problems.append(
            "reconstruction.snr: empty, but method: direct divides by a constant one; give 3, as SPIDER, or another"
        )
    if any(config.refinement.enhance) and not config.refinement.scattering:
        problems.append("refinement.enhance: needs refinement.scattering, the table of scattering amplitudes")
    if config.refinement.sharpening == "noise" and config.refinement.b_factor is not None:
        problems.append(
            f"refinement.b_factor: {config.refinement.b_factor:g} is not used with sharpening: noise; leave one of the two out"
        )
    for key, change in _changes(config).items():
        problems += _change(config, key, change)
    if config.classes.references and len(config.classes.references) != config.classes.count:
        problems.append(
            f"classes.references: {len(config.classes.references)} maps for classes.count: {config.classes.count}; give one for "
            "each class, or none"
        )
    return problems
