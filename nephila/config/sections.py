"""Every key of config.yaml: type, default, meaning, unit, and when to change it. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nephila.errors import InputError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Project(Section):
    """The project as a whole."""

    name: str = Field(
        "nephila",
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Name of the project (letters, digits, _ . -): the optics group's name too.",
    )
    seed: int = Field(
        1, ge=0, description="Seed of every random choice: half-sets, dust replacement, phase randomisation."
    )


class RawFile(Section):
    """Headerless scanner files."""

    width: Count = Field(description="Columns.")
    height: Count = Field(description="Rows.")
    bits: Literal[8, 16] = Field(16, description="Bits per pixel.")
    header_bytes: int = Field(0, ge=0, description="Bytes before the first pixel (342 for HiScan).")
    byte_order: Literal["little", "big"] = Field("little", description="Byte order of 16-bit pixels.")
    negatives: Literal["folded", "signed"] = Field(
        "folded",
        description="16-bit numbers with the highest bit set: folded, the large numbers 32768 to 65535; signed, negative.",
    )


class Input(Section):
    """What the run starts from. Paths are relative to the project folder."""

    micrographs: str = Field(
        "micrographs/*.mrc",
        description="Pattern of the micrographs: MRC (modes 0, 1, 2, 6, 12), TIFF, SPIDER, any of them gzipped.",
    )
    pixel_size: Positive = Field(1.0, description="Pixel size of the micrographs as given, A.")
    contrast: Literal["dark", "bright"] = Field(
        "dark", description="How protein appears: dark (cameras), or bright (already inverted)."
    )
    film: Literal["none", "transmission", "density"] = Field(
        "none",
        description="Scanned film: what the scanner gives, light transmitted (its logarithm is taken) or density; none: no film.",
    )
    decimate: Count = Field(
        1, description="Average so many neighbouring pixels in x and y before anything else; 1 leaves them."
    )
    coordinates: str | None = Field(
        None,
        description="STAR file with picked coordinates (rlnMicrographName, rlnCoordinateX/Y): start there instead of picking.",
    )
    particles: str | list[str] | None = Field(
        None,
        description="STAR file with extracted particles and their defoci, or a list of such files, which are joined: start there "
        "instead of at micrographs.",
    )
    ignore_aberrations: bool = Field(
        False,
        description="Take particles (input.particles) with beam tilt, Zernike terms or magnification that limit the resolution, "
        "and ignore those: no stage corrects them.",
    )
    raw: RawFile | None = Field(
        None, description="Layout of headerless scanner files (width, height, bits, header_bytes, byte_order)."
    )

    @property
    def particle_tables(self) -> list[str]:
        """Tables of given particles: none, one or several."""
        return [self.particles] if isinstance(self.particles, str) else list(self.particles or ())


class OpticsSection(Section):
    """The microscope."""

    voltage_kv: float = Field(300.0, ge=10, le=3000, description="Acceleration voltage, kV.")
    cs_mm: float = Field(2.7, ge=-1, le=20, description="Spherical aberration, mm; 0 for a Cs-corrected microscope.")
    amplitude_contrast: float = Field(0.1, ge=0, lt=1, description="Amplitude contrast, a fraction.")
    phase_shift_deg: float = Field(0.0, ge=0, lt=180, description="Phase shift of a phase plate, degrees.")


class Particle(Section):
    """The object."""

    diameter: Positive = Field(
        200.0, description="Longest diameter, A: sets masks, picking distances and the search radius."
    )
    box: int | None = Field(
        None,
        ge=16,
        description="Side of the particle windows, px (even); empty: 1.5 diameters, rounded up to a good size for FFTs.",
    )
    symmetry: str = Field("C1", description="Point group: C1, Cn, Dn, T, O or I, axes as in RELION.")


class Reference(Section):
    """The starting volume."""

    volume: str = Field(
        "reference.mrc", description="MRC volume, protein bright; any pixel size and box, from its header."
    )
    pixel_size: Positive | None = Field(
        None, description="Pixel size of the volume, A, where its header is wrong; empty: the header's."
    )
    resolution: Positive = Field(
        40.0, description="Low-pass of the reference before the first alignment, A. Coarser is safer."
    )


class Screening(Section):
    """When a micrograph is proposed for dropping (edits/sel_micrograph.star has the last word); 0 switches a test off."""

    min_gap: NotNegative = Field(
        5.0, description="Least lead of the fit's score over the best defocus elsewhere; less: perhaps a wrong peak."
    )
    max_resolution: NotNegative = Field(12.0, description="Rings must be explained at least this far, A.")
    max_defocus_error: NotNegative = Field(400.0, description="Largest standard error of the mean defocus, A.")
    max_astigmatism: NotNegative = Field(2500.0, description="Largest defocusU - defocusV, A.")
    max_anisotropy: NotNegative = Field(
        6.0, description="Ring strength in the best over that in the worst direction: drift."
    )
    max_ice: NotNegative = Field(1.5, description="Power of the 3.7 A ice ring over its surroundings.")
    max_foreign: NotNegative = Field(
        0.35, description="Share of the area much darker or brighter than the rest: carbon, contamination."
    )
    max_replaced: NotNegative = Field(0.2, description="Share of dead or hot pixels.")
    defocus_min: NotNegative = Field(0.0, description="Least mean defocus, A.")
    defocus_max: NotNegative = Field(0.0, description="Largest mean defocus, A.")


class Ctf(Section):
    """CTF estimation."""

    method: Literal["ctffind", "ctffind_pooled", "powdefocus", "import"] = Field(
        "ctffind",
        description="ctffind: 2D fit with astigmatism; ctffind_pooled: a second one with the rings' strength that the first "
        "hundred micrographs share, for faint rings; powdefocus: the 1D fit to the rotational profile, without astigmatism; "
        "import: take what import_from holds, and check it by the rings.",
    )
    import_from: str | None = Field(
        None,
        description="CTFs of another program, for method import: a STAR table (RELION's or Gctf's micrographs_ctf.star), or "
        "CTFFIND's text files as a pattern with * for the micrograph's name without ending (ctf/*_ctf.txt).",
    )
    tile: int = Field(
        512, ge=64, description="Side of the tiles whose spectra are averaged, px; smaller for small micrographs."
    )
    min_defocus: Positive = Field(3000.0, description="Search range, A.")
    max_defocus: Positive = Field(50000.0, description="Search range, A.")
    max_astigmatism: NotNegative = Field(
        3000.0, description="Largest defocusU - defocusV that the fit may find, A; 0: no astigmatism."
    )
    min_resolution: Positive = Field(30.0, description="Coarse end of the fitted rings, A.")
    max_resolution: Positive = Field(3.5, description="Fine end of the fitted rings, A; never beyond 95 % of Nyquist.")
    fit_phase_shift: bool = Field(False, description="Fit the phase shift of a phase plate too.")
    local: Literal["none", "tilt"] = Field(
        "none",
        description="Defocus across a micrograph: none: one for all particles; tilt: that of a plane at each particle's place, for "
        "refinement.ctf: particle (methods ctffind and ctffind_pooled).",
    )
    screening: Screening = Field(default_factory=Screening, description="Reasons to propose a micrograph for dropping.")


class DefocusGroups(Section):
    """Sorting micrographs into groups of similar defocus (edits/def_sort.star has the last word)."""

    method: Literal["defsort", "optimal"] = Field(
        "defsort",
        description="defsort: a group ends when a defocus exceeds its lowest by more than width; "
        "optimal: fewest groups whose CTF stays in phase to resolution.",
    )
    width: Positive = Field(1000.0, description="Widest group for defsort, A of defocus.")
    resolution: Positive = Field(
        8.0, description="Resolution to which optimal keeps the phase error below 90 degrees, A."
    )
    smallest: Count = Field(1, description="Fewest micrographs in a group, for optimal.")


class Picking(Section):
    """Finding particles."""

    method: Literal["lfc_pick", "pick"] = Field(
        "lfc_pick",
        description="lfc_pick: local fast correlation with projections of the reference; pick: blob of the particle's diameter.",
    )
    views: Count = Field(100, description="Views of the reference used as templates in the search; scoring uses more.")
    in_plane_step_deg: Positive = Field(12.0, le=60, description="In-plane step of those templates, degrees.")
    scales: list[Positive] = Field(
        [1.0],
        min_length=1,
        max_length=8,
        description="Blobs (pick): sizes tried in one pass, in diameters; [0.7, 1, 1.4] where the size is not known.",
    )
    min_distance: Positive = Field(0.7, description="Least distance between picks, in diameters.")
    threshold: float | None = Field(
        None, description="Score that a pick must reach; empty: from the distribution of all scores."
    )
    at_most: Count | None = Field(
        None, description="At most this many picks per micrograph, the best; empty: no limit."
    )
    border: NotNegative = Field(0.5, description="Picks keep this distance from the micrograph's edge, in box sides.")


class Particles(Section):
    """Cutting particles out."""

    normalise: Literal["ring", "histogram", "none"] = Field(
        "ring",
        description="ring: background mean 0 and deviation 1; histogram: matched to the noise window's; "
        "none: as cut, for windows that have background 0 and deviation 1 already.",
    )
    remove_ramp: bool = Field(True, description="Subtract a plane fitted to the background.")
    dust_sigma: NotNegative = Field(5.0, description="Replace pixels beyond this many deviations by noise; 0: never.")
    bin: float = Field(
        1.0,
        ge=1,
        le=16,
        description="Fourier-crop windows by this factor: 2 halves the sampling. particle.box counts px of the windows as written.",
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32",
        description="Number type of the stacks; float16 (MRC mode 12) halves the disk, but RELION 3.1 cannot read it.",
    )
    duplicate_distance: NotNegative = Field(
        0.4, description="Of particles closer than this, in diameters, the better one stays."
    )
    noise_candidate: Count = Field(
        1, description="Which of the noise windows serves (1: the best); see noise_candidates.mrcs."
    )
    pfilt: bool = Field(False, description="Also write low-passed windows for looking at (rule pfilt).")


class Alignment(Section):
    """The first alignment, by defocus group."""

    search: Literal["continuous", "grid"] = Field(
        "continuous",
        description="continuous: coarse grid, then least squares; grid: SPIDER's, angles of the grid only.",
    )
    angular_step_deg: Positive = Field(15.0, le=45, description="Step of the reference views, degrees.")
    shift_range: NotNegative = Field(25.0, description="Largest shift in x and y, A.")
    usectf: bool = Field(
        True, description="Multiply references by the group's CTF; off: one set of references for all groups."
    )


class Thresholds(Section):
    """Which aligned particles go on (edits/thresh.star has the last word)."""

    share_rejected: Share = Field(
        0.15, description="Share of each group's particles that falls below the proposed threshold."
    )
    best_per_view: Count | None = Field(
        None, description="At most this many particles per view and group (bestim); empty: no cap."
    )


class Reconstruction(Section):
    """The first reconstruction, by defocus group."""

    method: Literal["direct", "conjugate_gradients", "richardson"] = Field(
        "direct", description="How a volume is solved for: gridding with direct division, BP CG, or BP RP."
    )
    snr: Positive = Field(3.0, description="Signal-to-noise ratio of the Wiener merge over groups.")


class Mask(Section):
    """The soft mask around the object."""

    file: str | None = Field(
        None, description="MRC volume with values 0 to 1, in the project's box; empty: sphere of the diameter."
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
    shift_range: Positive | None = Field(None, description="Largest shift in x and y, A.")
    centre: bool | None = Field(None, description="As refinement.centre.")


class Refinement(Section):
    """Refinement of angles and shifts against the growing map."""

    iterations: int = Field(
        8, ge=1, le=99, description="Most iterations; the run stops earlier when nothing moves any more."
    )
    schedule: Literal["auto", "lists"] = Field(
        "auto", description="auto: from the data; lists: the five lists below, as in SPIDER."
    )
    angular_step_deg: list[Positive] = Field(
        [15.0, 3.3, 3.0, 2.0, 2.0, 2.0, 1.5],
        description="lists: angular step per iteration, degrees (the last one repeats).",
    )
    search_range_deg: list[NotNegative] = Field(
        [0.0, 0.0, 15.0, 15.0, 8.0, 6.0, 5.0],
        description="lists: search within this angle of the last direction; 0: everywhere.",
    )
    shift_range: list[Positive] = Field(
        [16.0], description="Largest shift in x and y per iteration, A (the last one repeats)."
    )
    enhance: list[bool] = Field([False], description="Amplitude enhancement per iteration (needs scattering).")
    small_angle: list[bool] = Field(
        [False], description="lists: small-angle search around each particle's last direction."
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
    scattering: str | None = Field(
        None, description="Scattering curve for enhance (STAR: nphSpatialFrequency in 1/A, nphIntensity)."
    )
    b_factor: float | None = Field(
        None, description="B factor of the final map's sharpening, A^2 (negative sharpens); empty: none."
    )
    centre: bool = Field(
        True, description="Keep the map's centre of gravity in the box centre, where the point group leaves it free."
    )
    end_method: Literal["direct", "conjugate_gradients"] = Field(
        "conjugate_gradients", description="How the final volumes are solved for."
    )
    mask: Mask = Field(default_factory=Mask, description="Mask of the references and of the masked FSC.")
    changes: list[RefinementChange] = Field(
        [],
        description="Settings from an iteration on, for continuing a refinement: `- {from_iteration: 5, symmetry: D7}`; earlier "
        "iterations are not run again.",
    )


class Jobs(Section):
    """How the work is cut into jobs. Results do not depend on it."""

    micrographs_per_batch: Count = Field(12, description="Micrographs per job; aim at minutes of work.")
    particles_per_chunk: Count = Field(
        10240, description="Particles per refinement job, rounded up to whole blocks of 256."
    )
    keep_intermediate: bool = Field(False, description="Keep stacks and sums that later steps no longer need.")


class Truth(Section):
    """Known truth of simulated data, for the summary only."""

    map: str | None = Field(None, description="True volume, MRC.")
    particles: str | None = Field(None, description="True particles, STAR.")
    micrographs: str | None = Field(None, description="True defoci, STAR.")


class Config(Section):
    """Configuration of one project."""

    project: Project = Field(default_factory=Project)
    input: Input = Field(default_factory=Input)
    optics: OpticsSection = Field(default_factory=OpticsSection)
    particle: Particle = Field(default_factory=Particle)
    reference: Reference = Field(default_factory=Reference)
    ctf: Ctf = Field(default_factory=Ctf)
    defocus_groups: DefocusGroups = Field(default_factory=DefocusGroups)
    picking: Picking = Field(default_factory=Picking)
    particles: Particles = Field(default_factory=Particles)
    alignment: Alignment = Field(default_factory=Alignment)
    thresholds: Thresholds = Field(default_factory=Thresholds)
    reconstruction: Reconstruction = Field(default_factory=Reconstruction)
    refinement: Refinement = Field(default_factory=Refinement)
    jobs: Jobs = Field(default_factory=Jobs)
    truth: Truth = Field(default_factory=Truth)

    @property
    def pixel_size(self) -> float:
        """Pixel size of the particle windows, A: that of everything downstream of them."""
        return self.micrograph_pixel_size * self.cut_box / self.box

    @property
    def micrograph_pixel_size(self) -> float:
        """Pixel size of the micrographs after decimation, A."""
        return self.input.pixel_size * self.input.decimate

    @property
    def cut_box(self) -> int:
        """Side of the windows as cut from the decimated micrographs, px, before `particles.bin`."""
        return self.box if self.particles.bin == 1 else 2 * round(self.box * self.particles.bin / 2)

    @property
    def box(self) -> int:
        """Side of the particle windows, px: the given one, or 1.5 diameters rounded up to a good even size."""
        if self.particle.box is not None:
            return self.particle.box
        return good_box(1.5 * self.particle.diameter / (self.micrograph_pixel_size * self.particles.bin))

    @model_validator(mode="after")
    def check_between_sections(self) -> Config:
        """What no single key can know; each message names the keys and what would be right."""
        from nephila.symmetry import parse_point_group

        nyquist, ctf_nyquist = 2 * self.pixel_size, 2 * self.micrograph_pixel_size
        size = self.particle.diameter / self.pixel_size
        problems = []
        try:
            parse_point_group(self.particle.symmetry)
        except InputError as error:
            problems.append(f"particle.symmetry: {error}")
        if self.box % 2:
            problems.append(f"particle.box: {self.box} is odd; use {self.box + 1}")
        if self.box < size:
            problems.append(
                f"particle.box: {self.box} px are {self.box * self.pixel_size:.0f} A, less than the particle's diameter of "
                f"{self.particle.diameter:g} A; use {good_box(1.5 * size)}"
            )
        limits = {"reference.resolution": self.reference.resolution}
        if self.defocus_groups.method == "optimal":
            limits["defocus_groups.resolution"] = self.defocus_groups.resolution
        for key, value in limits.items():
            if value < nyquist:
                problems.append(f"{key}: {value:g} A is finer than Nyquist ({nyquist:g} A at {self.pixel_size:g} A/px)")
        if self.particles.bin != 1 and self.input.particles:
            problems.append(
                f"particles.bin: {self.particles.bin:g} is for windows cut from micrographs; given particles keep their sampling: "
                "leave it at 1"
            )
        if size < 10:
            problems.append(
                f"particle.diameter: {self.particle.diameter:g} A are {size:.1f} px of {self.pixel_size:g} A in the windows; "
                "at least 10 are needed: correct the diameter or input.pixel_size, or bin less"
            )
        if self.ctf.min_resolution <= max(self.ctf.max_resolution, ctf_nyquist):
            problems.append(
                f"ctf.min_resolution: {self.ctf.min_resolution:g} A must be coarser than max_resolution "
                f"({self.ctf.max_resolution:g} A) and Nyquist ({ctf_nyquist:g} A)"
            )
        if (self.ctf.method == "import") != (self.ctf.import_from is not None):
            problems.append(
                "ctf.import_from and ctf.method: import belong together; give both, or neither"
                + (f" (import_from is {self.ctf.import_from!r})" if self.ctf.import_from else "")
            )
        elif (
            self.ctf.import_from and not self.ctf.import_from.endswith(".star") and self.ctf.import_from.count("*") != 1
        ):
            problems.append(
                f"ctf.import_from: {self.ctf.import_from!r} is neither a table (.star) nor a pattern with one *, which stands "
                "for the micrograph's name"
            )
        if self.ctf.local != "none" and not self.ctf.method.startswith("ctffind"):
            problems.append(
                f"ctf.local: {self.ctf.local} needs ctf.method: ctffind or ctffind_pooled (it is {self.ctf.method})"
            )
        if self.ctf.min_defocus >= self.ctf.max_defocus:
            problems.append(
                f"ctf.min_defocus: {self.ctf.min_defocus:g} A must be below max_defocus ({self.ctf.max_defocus:g} A)"
            )
        if any(self.refinement.enhance) and not self.refinement.scattering:
            problems.append("refinement.enhance: needs refinement.scattering, the table of scattering amplitudes")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def good_box(least: float) -> int:
    """The smallest even number of at least `least` with no prime factor above 5."""
    size = max(16, 2 * int(-(-least // 2)))
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2
