"""Keys of the refinement and of what follows it: mask, schedule, what changes from an iteration on, 3D classes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nephila.config.base import Band, Count, Listed, NotNegative, Positive, Section
from nephila.config.reconstruction import Method


class Mask(Section):
    """The soft mask around the object."""

    file: str | None = Field(
        None, description="MRC volume with values 0 to 1, in the project's box; empty: as `shape` says."
    )
    shape: Literal["sphere", "auto"] = Field(
        "sphere",
        description="Without a file: sphere of the diameter; auto: around the density that both half maps show at low "
        "resolution, anew in each iteration (the sphere while there is none).",
    )
    edge: Positive = Field(12.0, description="Width of the soft edge, A.")
    diameter: Positive | None = Field(None, description="Diameter of the sphere, A; empty: 1.1 particle diameters.")


class RefinementChange(Section):
    """Settings of the refinement that hold from an iteration on; keys that are left out stay as they were."""

    from_iteration: int = Field(ge=2, le=99, description="First iteration that they hold for.")
    start_again: bool = Field(False, description="Search exhaustively in that iteration, and judge convergence anew.")
    symmetry: str | None = Field(None, description="Point group, as particle.symmetry.")
    schedule: Literal["auto", "lists"] | None = Field(None, description="As refinement.schedule.")
    halves: Literal["independent", "shared"] | None = Field(None, description="As refinement.halves.")
    ctf: Literal["group", "particle"] | None = Field(None, description="As refinement.ctf.")
    snr: Positive | None = Field(None, description="As refinement.snr.")
    join_resolution: NotNegative | None = Field(None, description="As refinement.join_resolution, A.")
    search: Literal["continuous", "grid"] | None = Field(None, description="As alignment.search.")
    angular_step_deg: Positive | None = Field(None, description="schedule lists: angular step, degrees.")
    search_range_deg: NotNegative | None = Field(
        None, description="schedule lists: search within this angle; 0: everywhere."
    )
    small_angle: bool | None = Field(None, description="schedule lists: small-angle search.")
    shift_range: Positive | None = Field(None, description="Largest shift in x and y, A.")
    enhance: bool | None = Field(None, description="Amplitude enhancement (needs scattering).")
    centre: bool | None = Field(None, description="As refinement.centre.")
    filter: Literal["wiener", "butterworth"] | None = Field(None, description="As refinement.filter.")
    mask: Mask | None = Field(None, description="Keys of refinement.mask that change; those left out stay.")


class Refinement(Section):
    """Refinement of angles and shifts against the growing map."""

    iterations: int = Field(
        8, ge=1, le=99, description="Most iterations; the run stops earlier when nothing moves any more."
    )
    schedule: Literal["auto", "lists"] = Field(
        "auto", description="auto: from the data; lists: the lists below, as in SPIDER."
    )
    angular_step_deg: Listed[Positive] = Field(
        [15.0, 3.3, 3.0, 2.0, 2.0, 2.0, 1.5],
        description="lists: angular step per iteration, degrees (the last one repeats): of the reference views, or where the "
        "search is continuous and local, of the poses around the last one that it starts from.",
    )
    search_range_deg: Listed[NotNegative] = Field(
        [0.0, 0.0, 15.0, 15.0, 8.0, 6.0, 5.0],
        description="lists: search within this angle of the last pose (on the grid: of its direction, and in the plane); 0: "
        "everywhere.",
    )
    shift_range: Listed[Positive] = Field(
        [16.0], description="Largest shift in x and y per iteration, A (the last one repeats)."
    )
    enhance: Listed[bool] = Field([False], description="Amplitude enhancement per iteration (needs scattering).")
    small_angle: Listed[bool] = Field(
        [False], description="lists: small-angle search around each particle's last direction, by the two keys below."
    )
    small_angle_step_deg: Positive = Field(0.5, description="Angular step of small-angle iterations, degrees.")
    small_angle_range_deg: Positive = Field(
        2.0, description="Small-angle iterations stay within this angle of the last direction, degrees."
    )
    halves: Literal["independent", "shared"] = Field(
        "independent",
        description="independent: each half follows its own reference; shared: one reference for both, as in SPIDER.",
    )
    ctf: Literal["group", "particle"] = Field("group", description="CTF of the defocus group, or each particle's own.")
    snr: Positive | None = Field(
        None, description="Constant SNR of the Wiener merge (SPIDER: 3); empty: from the half-map FSC."
    )
    join_resolution: NotNegative = Field(
        40.0, description="The two references share what is coarser than this, A; 0: nothing."
    )
    filter: Literal["wiener", "butterworth"] = Field(
        "wiener",
        description="Filter of the references and of each iteration's map: wiener, by the half maps' FSC; butterworth, SPIDER's, "
        "with its pass band where the FSC is 0.5.",
    )
    filter_stop: Positive = Field(
        0.15, description="butterworth: stop band beyond the pass band, in units of sampling (Nyquist is 0.5)."
    )
    filter_at_most: Band = Field(0.4, description="butterworth: highest pass band, in units of sampling.")
    view_cap: float | None = Field(
        None,
        ge=1,
        description="Most that views may be seen, in units of the mean over all views: particles of more crowded ones weigh less; "
        "empty: no cap.",
    )
    scattering: str | None = Field(
        None, description="Scattering curve for enhance (STAR: nphSpatialFrequency in 1/A, nphIntensity)."
    )
    sharpening: Literal["b_factor", "noise"] = Field(
        "b_factor",
        description="Amplitudes of the final map: b_factor, by the key below; noise, level from 10 A to the resolution reached, as "
        "far as signal exceeds noise (it needs no number, and a map finer than 10 A).",
    )
    b_factor: float | None = Field(
        None, description="B factor of the final map's sharpening, A^2 (negative sharpens); empty: none."
    )
    centre: bool = Field(
        True, description="Keep the map's centre of gravity in the box centre, where the point group leaves it free."
    )
    end_method: Method = Field(
        "conjugate_gradients",
        description="How the final volumes are solved for; settings of the last two: reconstruction.conjugate_gradients, "
        "reconstruction.richardson.",
    )
    mask: Mask = Field(default_factory=Mask, description="Mask of the references and of the masked FSC.")
    changes: list[RefinementChange] = Field(
        [],
        description="Settings from an iteration on, for continuing a refinement: `- {from_iteration: 5, symmetry: D7}`; earlier "
        "iterations are not run again.",
    )


class Classes(Section):
    """Separation of the refined particles into 3D classes: conformations, or particles that are something else."""

    count: int = Field(1, ge=1, le=20, description="Number of classes; 1: none are made.")
    resolution: Positive = Field(
        20.0, description="Finest detail by which particles are assigned, A; coarser is faster and bears more noise."
    )
    rounds: Count = Field(
        25, description="Most rounds in given poses; they end earlier when hardly a particle changes its class."
    )
    search: Literal["none", "local", "exhaustive"] = Field(
        "none",
        description="Poses to each class's map: none, those of the refinement; local, refined; exhaustive, found anew, for "
        "classes that are different objects.",
    )
    references: list[str] = Field(
        [],
        description="Maps to start from, one for each class (MRC, in the frame of the refined map); none: found from the "
        "particles.",
    )
