"""Every key of config.yaml: type, default, meaning, unit, and when to change it. Unknown keys are refused."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nephila.config.base import Count, NotNegative, Positive, Section, Share
from nephila.config.reconstruction import Reconstruction
from nephila.config.refinement import Classes, Refinement
from nephila.fast_sides import good_box


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
    optics_groups: Literal["one", "several"] = Field(
        "one",
        description="Pixel size, box and optics of input.particles: one, the configuration's; or several, each compared with the "
        "reference on its own Fourier grid: input.pixel_size and particle.box are then those of reference and map, and aberrations "
        "are corrected.",
    )
    ignore_aberrations: bool = Field(
        False,
        description="Take no notice of beam tilt, Zernike terms and magnification of particles (input.particles). Otherwise "
        "optics_groups: several corrects them, and one refuses them where they limit the resolution.",
    )
    overfocus: bool = Field(
        False,
        description="Take particles (input.particles) whose defocus is negative, overfocus; otherwise such a table is refused.",
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

    voltage_kv: float = Field(300.0, ge=40, le=3000, description="Acceleration voltage, kV.")
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


class Initial(Section):
    """The initial model that is made from the particles where reference.volume is empty."""

    tries: int = Field(
        4, ge=1, le=32, description="Searches from random starts; the likeliest is taken. More for difficult particles."
    )
    rounds: int = Field(60, ge=10, le=1000, description="Batches of particles that each search goes through.")
    particles: int = Field(1000, ge=50, le=20000, description="Most particles used, drawn at random.")
    resolution: Positive | None = Field(
        None,
        description="Resolution of the model, A; empty: a tenth of the diameter, which is fine enough to start from.",
    )
    mirror: bool = Field(
        False, description="Go on with the model's mirror image; particles cannot tell which hand is right."
    )


class Reference(Section):
    """The starting volume."""

    volume: str | None = Field(
        "reference.mrc",
        description="MRC volume, protein bright; any pixel size and box, from its header; empty: an initial model is made from "
        "the particles.",
    )
    pixel_size: Positive | None = Field(
        None, description="Pixel size of the volume, A, where its header is wrong; empty: the header's."
    )
    sampling: Literal["trust", "resample", "refuse"] = Field(
        "trust",
        description="A volume of another pixel size or box than the project's: trust its header and resample it, or refuse it. "
        "trust still refuses one of the same box whose pixel size is within 6 % of the project's but not equal, since such a map "
        "was most likely relabelled, not resampled; resample takes that too.",
    )
    resolution: Positive = Field(
        40.0, description="Low-pass of the reference before the first alignment, A. Coarser is safer."
    )
    initial: Initial = Field(default_factory=Initial, description="Initial model without a volume.")


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
    max_resolution: Positive | Literal["auto"] = Field(
        3.5,
        description="Fine end of the fitted rings, A; never beyond 95 % of Nyquist. auto: half as far again as each micrograph's "
        "rings are explained, 2 to 10 A.",
    )
    fit_phase_shift: bool = Field(False, description="Fit the phase shift of a phase plate too.")
    local: Literal["none", "tilt", "particle"] = Field(
        "none",
        description="Defocus across a micrograph: none: one for all particles; tilt: that of a plane at each particle's place; "
        "particle: what the tiles around each particle tell beyond that plane too (uneven ice; needs strong rings). "
        "For refinement.ctf: particle (methods ctffind and ctffind_pooled).",
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
    finest: float = Field(
        14.0,
        ge=4,
        le=100,
        description="Finest detail of the reference that lfc_pick compares, A. 10 finds more particles below 170 A at low "
        "defocus, for 1.4 times the CPU time, where reference.resolution is as fine.",
    )
    blob: Literal["dog", "disk", "log"] = Field(
        "dog",
        description="Shape of the blob (pick): dog: Gaussian less a wider one; disk: less the ring around it; log: Laplacian of a "
        "Gaussian.",
    )
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
    min_probability: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Leave out picks that are less likely particles than this, by the distribution of all scores; 0: the threshold "
        "alone decides.",
    )
    overlap: NotNegative = Field(
        0.0,
        description="Of picks nearer to each other than this, in diameters, the better one stays (1: particles must not overlap); "
        "0: min_distance alone counts.",
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
    shift_to_centre: bool = Field(
        False,
        description="Windows cut from micrographs: shift the rest below a pixel away, by phases; off: windows keep their pixels as "
        "they are, and rlnOriginX/YAngst holds the rest.",
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
    shift_step: Positive | None = Field(
        None,
        description="Step of the shifts that a search tries, here and in the refinement, A (SPIDER: 2 px); empty: a quarter of the "
        "shortest period that it compares. continuous: the start of finer steps; grid: the shifts' accuracy.",
    )
    usectf: bool = Field(
        True, description="Multiply references by the group's CTF; off: one set of references for all groups."
    )


class Thresholds(Section):
    """Which aligned particles go on (edits/thresh.star has the last word)."""

    share_rejected: Share = Field(
        0.15, description="Share of each group's particles that falls below the proposed threshold."
    )
    doubt_sigma: NotNegative = Field(
        3.0,
        description="Aligned particles that differ from their group's by so many standard deviations, in agreement with the "
        "average of their view or in principal components, are proposed for dropping; 0: none are (edits/good.star has the last "
        "word).",
    )
    best_per_view: Count | None = Field(
        None, description="At most this many particles per view and group (bestim); empty: no cap."
    )


class Jobs(Section):
    """How the work is cut into jobs. Results do not depend on it."""

    micrographs_per_batch: Count = Field(12, description="Micrographs per job; aim at minutes of work.")
    particles_per_chunk: Count = Field(
        10240, description="Particles per refinement job, rounded up to whole blocks of 256."
    )
    keep_intermediate: bool = Field(
        False, description="Keep the spectra and partial sums that later steps no longer need."
    )
    lean: bool = Field(
        False,
        description="Less disk: windows by micrograph, averages, sums and half volumes by group, and volumes of iterations before "
        "the last go once nothing needs them. A later change that needs them makes them again, with all that leads there.",
    )


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
    classes: Classes = Field(default_factory=Classes)
    jobs: Jobs = Field(default_factory=Jobs)
    truth: Truth = Field(default_factory=Truth)

    @property
    def picks_by_reference(self) -> bool:
        """Whether particles are searched for with projections of the starting volume."""
        given = self.input.particles or self.input.coordinates
        return not given and self.picking.method == "lfc_pick"

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
        from nephila.config.between import problems_between_sections

        problems = problems_between_sections(self)
        if problems:
            raise ValueError("; ".join(problems))
        return self
