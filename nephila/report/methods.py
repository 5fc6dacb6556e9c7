"""A methods paragraph for a paper: what this run did with its settings, in words, and whom to cite for it."""

from __future__ import annotations

from dataclasses import dataclass

from nephila.config.refinement import Refinement
from nephila.defocus_by_hand import REASON as BY_HAND
from nephila.report.collect import Run, rows_of


@dataclass(frozen=True)
class Reference:
    """A publication: authors, title, where, doi."""

    authors: str
    title: str
    source: str
    doi: str


REFERENCES = {
    "spider_procedures": Reference(
        "Shaikh TR, Gao H, Baxter WT, Asturias FJ, Boisset N, Leith A, Frank J (2008)",
        "SPIDER image processing for single-particle reconstruction of biological macromolecules from electron micrographs",
        "Nature Protocols 3, 1941-1974", "10.1038/nprot.2008.156",
    ),
    "spider": Reference(
        "Frank J, Radermacher M, Penczek P, Zhu J, Li Y, Ladjadj M, Leith A (1996)",
        "SPIDER and WEB: processing and visualization of images in 3D electron microscopy and related fields",
        "Journal of Structural Biology 116, 190-199", "10.1006/jsbi.1996.0030",
    ),
    "snakemake": Reference(
        "Mölder F, Jablonski KP, Letcher B, Hall MB, Tomkins-Tinch CH, Sochat V, Forster J, Lee S, Twardziok SO, Kanitz A, Wilm A, "
        "Holtgrewe M, Rahmann S, Nahnsen S, Köster J (2021)",
        "Sustainable data analysis with Snakemake", "F1000Research 10, 33", "10.12688/f1000research.29032.2",
    ),
    "ctffind": Reference(
        "Rohou A, Grigorieff N (2015)", "CTFFIND4: Fast and accurate defocus estimation from electron micrographs",
        "Journal of Structural Biology 192, 216-221", "10.1016/j.jsb.2015.08.008",
    ),
    "local_correlation": Reference(
        "Roseman AM (2003)", "Particle finding in electron micrographs using a fast local correlation algorithm",
        "Ultramicroscopy 94, 225-236", "10.1016/S0304-3991(02)00333-9",
    ),
    "initial_model": Reference(
        "Punjani A, Rubinstein JL, Fleet DJ, Brubaker MA (2017)",
        "cryoSPARC: algorithms for rapid unsupervised cryo-EM structure determination", "Nature Methods 14, 290-296",
        "10.1038/nmeth.4169",
    ),
    "projection_matching": Reference(
        "Penczek PA, Grassucci RA, Frank J (1994)",
        "The ribosome at improved resolution: new techniques for merging and orientation refinement in 3D cryo-electron microscopy "
        "of biological particles", "Ultramicroscopy 53, 251-270", "10.1016/0304-3991(94)90038-8",
    ),
    "gridding": Reference(
        "Jackson JI, Meyer CH, Nishimura DG, Macovski A (1991)",
        "Selection of a convolution function for Fourier inversion using gridding",
        "IEEE Transactions on Medical Imaging 10, 473-478", "10.1109/42.97598",
    ),
    "kaiser_bessel": Reference(
        "Beatty PJ, Nishimura DG, Pauly JM (2005)", "Rapid gridding reconstruction with a minimal oversampling ratio",
        "IEEE Transactions on Medical Imaging 24, 799-808", "10.1109/TMI.2005.848376",
    ),
    "half_sets": Reference(
        "Scheres SHW, Chen S (2012)", "Prevention of overfitting in cryo-EM structure determination", "Nature Methods 9, 853-854",
        "10.1038/nmeth.2115",
    ),
    "wiener": Reference(
        "Scheres SHW (2012)", "RELION: implementation of a Bayesian approach to cryo-EM structure determination",
        "Journal of Structural Biology 180, 519-530", "10.1016/j.jsb.2012.09.006",
    ),
    "threshold": Reference(
        "Rosenthal PB, Henderson R (2003)",
        "Optimal determination of particle orientation, absolute hand, and contrast loss in single-particle electron "
        "cryomicroscopy",
        "Journal of Molecular Biology 333, 721-745", "10.1016/j.jmb.2003.07.013",
    ),
    "randomisation": Reference(
        "Chen S, McMullan G, Faruqi AR, Murshudov GN, Short JM, Scheres SHW, Henderson R (2013)",
        "High-resolution noise substitution to measure overfitting and validate resolution in 3D structure determination by single "
        "particle electron cryomicroscopy", "Ultramicroscopy 135, 24-35", "10.1016/j.ultramic.2013.06.004",
    ),
    "numpy": Reference(
        "Harris CR, Millman KJ, van der Walt SJ, et al. (2020)", "Array programming with NumPy", "Nature 585, 357-362",
        "10.1038/s41586-020-2649-2",
    ),
    "scipy": Reference(
        "Virtanen P, Gommers R, Oliphant TE, et al. (2020)", "SciPy 1.0: fundamental algorithms for scientific computing in Python",
        "Nature Methods 17, 261-272", "10.1038/s41592-019-0686-2",
    ),
    "numba": Reference(
        "Lam SK, Pitrou A, Seibert S (2015)", "Numba: a LLVM-based Python JIT compiler",
        "Proceedings of the Second Workshop on the LLVM Compiler Infrastructure in HPC, article 7", "10.1145/2833157.2833162",
    ),
}  # fmt: skip


class Citations:
    """Numbers references in the order in which they are first cited."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def __call__(self, *keys: str) -> str:
        """`[1, 2]` for these keys of `REFERENCES`."""
        for key in keys:
            if key not in self.keys:
                self.keys.append(key)
        return "[" + ", ".join(str(self.keys.index(key) + 1) for key in keys) + "]"

    @property
    def references(self) -> list[Reference]:
        """What was cited, in order."""
        return [REFERENCES[key] for key in self.keys]


def methods_text(run: Run) -> tuple[list[str], list[Reference]]:
    """Paragraphs for a finished run (or as far as it has come), and the references that they cite."""
    cite = Citations()
    parts = [_data(run, cite), _particles(run, cite), _refinement(run, cite), _software(run, cite)]
    return [" ".join(sentence for sentence in part if sentence) for part in parts if part], cite.references


def _data(run: Run, cite: Citations) -> list[str]:
    config, optics = run.config, run.config.optics
    version = run.summary.get("versions", {}).get("nephila", "")
    sentences = [
        f"Images were processed with Nephila{' ' + version if version else ''}, which runs SPIDER's procedures for "
        f"reconstruction with defocus groups {cite('spider_procedures', 'spider')} as a Snakemake workflow {cite('snakemake')}."
    ]
    given = run.summary.get("micrographs", {})
    pixel = f"{config.input.pixel_size:g} Å per pixel"
    binned = f", averaged {config.input.decimate} x {config.input.decimate}" if config.input.decimate > 1 else ""
    what = f"{given['given']} micrographs" if given else "Micrographs"
    if config.input.optics_groups == "several":
        return [*sentences, _optics_groups(run, what), _ctf(run, cite), _groups(run)]
    sentences.append(
        f"{what} ({pixel}{binned}) taken at {optics.voltage_kv:g} kV (spherical aberration {optics.cs_mm:g} mm) were used, with "
        f"an amplitude contrast of {optics.amplitude_contrast:g}"
        + (f" and a phase shift of {optics.phase_shift_deg:g} degrees." if optics.phase_shift_deg else ".")
    )
    return [*sentences, _ctf(run, cite), _groups(run)]


def _optics_groups(run: Run, what: str) -> str:
    """Optics and sampling of each group, where there are several; without a table yet only that there are."""
    config, table = run.config, run.table("optics")
    phase = config.optics.phase_shift_deg
    shift = f" The phase shift was {phase:g} degrees." if phase else ""
    grid = f"on the grid of the map ({config.box} pixels of {config.pixel_size:g} Å)"
    columns = {"rlnImagePixelSize", "rlnImageSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"}
    if table is None or not columns <= set(table.columns):
        return f"{what} of several optics groups were used, each compared with the reference {grid} at its own sampling.{shift}"
    names = table.get("rlnOpticsGroupName", table["rlnOpticsGroup"].map("group {}".format))
    groups = [
        f"{name} ({row.rlnImageSize:g} pixels of {row.rlnImagePixelSize:g} Å, {row.rlnVoltage:g} kV, spherical aberration "
        f"{row.rlnSphericalAberration:g} mm, amplitude contrast {row.rlnAmplitudeContrast:g})"
        for name, row in zip(names, rows_of(table), strict=True)
    ]
    number = f"{len(groups)} optics groups" if len(groups) > 1 else "one optics group"
    return f"{what} of {number} were used, each at its own sampling {grid}: {'; '.join(groups)}.{shift}"


def _ctf(run: Run, cite: Citations) -> str:
    config, ctf = run.config, run.config.ctf
    fine = "1.5 times the frequency to which the rings were explained"
    if ctf.max_resolution != "auto":
        fine = f"{max(ctf.max_resolution, 2 * config.pixel_size / 0.95):.2g} Å"  # the fit stays below Nyquist
    fitted = f"power spectra of overlapping tiles of {ctf.tile} pixels, between {ctf.min_resolution:g} Å and {fine}"
    if config.input.particles:
        return "Particles and their defoci were taken from another program."
    table = run.table("micrographs")
    number = int((table["nphReason"] == BY_HAND).sum()) if table is not None and "nphReason" in table else 0
    by_hand = f" {number} micrograph{' was' if number == 1 else 's were'} fitted by hand." if number else ""
    if ctf.method == "import":
        return f"Defoci were taken from another program.{by_hand}"
    if ctf.method == "powdefocus":
        return f"Defocus was fitted to the rotational average of {fitted}.{by_hand}"
    return (
        f"Defocus and astigmatism were fitted in two dimensions to averaged {fitted}, along the lines of CTFFIND4 "
        f"{cite('ctffind')}.{by_hand}"
    )


def _groups(run: Run) -> str:
    config, groups = run.config, run.table("groups")
    given = run.summary.get("micrographs", {})
    if groups is None or not len(groups):
        return ""
    span = groups["nphGroupDefocus"] / 1e4
    how = (
        f"at most {config.defocus_groups.width:g} Å wide"
        if config.defocus_groups.method == "defsort"
        else f"whose CTF stays in phase to {config.defocus_groups.resolution:g} Å"
    )
    left_out = given.get("given", 0) - given.get("kept", 0)
    lead = f"{left_out} micrographs were left out; the others" if left_out > 1 else "The micrographs"
    lead = "One micrograph was left out; the others" if left_out == 1 else lead
    number = "one defocus group" if len(groups) == 1 else f"{len(groups)} defocus groups"
    return f"{lead}, with mean defoci from {span.min():.2f} to {span.max():.2f} µm, were sorted into {number} {how}."


def _particles(run: Run, cite: Citations) -> list[str]:
    config, counts = run.config, run.summary.get("particles", {})
    size = f"{config.box} pixels ({config.box * config.pixel_size:.0f} Å)"
    if config.input.particles:
        sentences = [f"{_count(counts, 'selected')} particles in windows of {size} were used."]
    else:
        found = f"{_count(counts, 'picked')} particles"
        if config.input.coordinates:
            sentences = [f"{found} were cut out at coordinates from another program, in windows of {size}."]
        elif config.picking.method == "lfc_pick":
            sentences = [
                f"{found} were picked by fast local correlation {cite('local_correlation')} with "
                f"{config.picking.views} projections of "
                f"a reference low-pass filtered to {config.reference.resolution:g} Å, and cut out in windows of {size}."
            ]
        else:
            sentences = [
                f"{found} were picked as blobs of {config.particle.diameter:g} Å and cut out in windows of {size}."
            ]
        normalised = {
            "ring": "normalised to mean 0 and deviation 1 of the background",
            "histogram": "matched to the histogram of a window without particles",
        }.get(config.particles.normalise)
        if normalised:
            sentences.append(f"Windows were {normalised}.")
    if not config.reference.volume:
        initial = config.reference.initial
        sentences.append(
            f"The starting volume was made from up to {initial.particles:,} of these particles by stochastic expectation "
            f"maximisation {cite('initial_model')} from {initial.tries} random starts, of which the likeliest was taken"
            f"{' as its mirror image' if initial.mirror else ''}."
        )
    limits = config.thresholds
    times_ctf = ", multiplied by the group's CTF" if config.alignment.usectf else ""
    sentences.append(
        f"{_count(counts, 'aligned')} particles were aligned to projections of the reference "
        f"{cite('projection_matching')}{times_ctf}."
    )
    if limits.share_rejected:
        sentences.append(
            f"The {limits.share_rejected:.0%} with the lowest correlation in each defocus group were dropped."
        )
    sentences += _caps(run)
    sentences.append(f"{_count(counts, 'refined')} particles went into the refinement.")
    return sentences


def _caps(run: Run) -> list[str]:
    """What a cap per view did: those of the groups, where the run says them, else the setting's."""
    kept, usual = run.table("kept"), run.config.thresholds.best_per_view
    if kept is None or "nphAtMost" not in kept:
        return [f"At most {usual} particles were kept for each view and group."] if usual else []
    caps = kept.loc[kept["nphAtMost"] > 0, "nphAtMost"].astype(int)
    if not len(caps):
        return []
    most = str(caps.min()) if caps.min() == caps.max() else f"{caps.min()} to {caps.max()}"
    where = "" if len(caps) == len(kept) else f" in {len(caps)} of {len(kept)} groups"
    return [f"At most {most} particles were kept for each view and group{where}."]


def _count(counts: dict[str, int], name: str) -> str:
    return f"{counts[name]:,}" if name in counts else "The"


def _refinement(run: Run, cite: Citations) -> list[str]:
    settings, iterations = run.config.refinement, run.table("iterations")
    independent = settings.halves == "independent"
    halves = (
        f"two half-sets refined independently {cite('half_sets')}"
        if independent
        else "two half-sets refined against one reference"
    )
    sentences = [
        f"Orientations and origins were refined from the original images by matching to central sections of the map, with {halves}"
        + (
            f" that shared frequencies below 1/{settings.join_resolution:g} Å⁻¹"
            if independent and settings.join_resolution
            else ""
        )
        + f", and the CTF of each {'particle' if settings.ctf == 'particle' else 'defocus group'}; point group "
        f"{run.config.particle.symmetry}."
    ]
    if iterations is not None and len(iterations) > 1:
        worked = iterations[~iterations["nphSearch"].isin(["start", "none"])]
        exhaustive, local = (int((worked["nphSearch"] == kind).sum()) for kind in ("exhaustive", "local"))
        stopped = (
            "until nothing moved any more" if int(iterations["nphConverged"].iloc[-1]) else "as many as were allowed"
        )
        sentences.append(f"This took {len(worked)} iterations ({exhaustive} exhaustive, {local} local), {stopped}.")
    sentences.append(
        f"Volumes were made by gridding in Fourier space {cite('gridding', 'kaiser_bessel')}"
        + {"direct": "", "richardson": ", the final ones by Richardson iteration"}.get(
            settings.end_method, ", the final ones by conjugate gradients"
        )
        + _filters(settings, cite)
    )
    particles = run.table("particles")
    if particles is not None and "nphNoiseLevel" in particles:
        sentences.append(
            "Particles were weighed by the noise of their defocus group and micrograph, by their amplitude, and by how likely "
            "their pose was right"
            + (f"; views seen more than {settings.view_cap:g} times the mean count less." if settings.view_cap else ".")
        )
    resolution = run.summary.get("resolution", {})
    if resolution.get("fsc_0143"):
        mask = settings.mask
        diameter = mask.diameter or 1.1 * run.config.particle.diameter
        inside = "a given soft mask" if mask.file else f"a sphere of {diameter:.0f} Å with an edge of {mask.edge:g} Å"
        half = f" ({resolution['fsc_05']:.2f} Å at 0.5)" if resolution.get("fsc_05") else ""
        sentences.append(
            f"The resolution is {resolution['fsc_0143']:.2f} Å at a Fourier shell correlation of 0.143 "
            f"{cite('threshold')}{half} inside "
            f"{inside}, corrected by phase randomisation {cite('randomisation')}"
            + (f", and {resolution['unmasked_0143']:.2f} Å without a mask." if resolution.get("unmasked_0143") else ".")
        )
    if settings.sharpening == "noise":
        sentences.append("The map's amplitudes were levelled beyond 10 Å, as far as its signal exceeds its noise.")
    if settings.b_factor is not None:
        sentences.append(f"The map was sharpened with a B factor of {settings.b_factor:g} Å².")
    return sentences


def _filters(settings: Refinement, cite: Citations) -> str:
    """How groups were merged with a constant SNR, and references filtered."""
    merged = f", with a constant signal-to-noise ratio of {settings.snr:g}" if settings.snr else ""
    if settings.filter == "butterworth":
        return f"{merged}; references were low-passed by a Butterworth filter where the half maps' FSC falls to 0.5."
    return f"{merged}; references were Wiener filtered with the signal-to-noise ratio from the half maps' FSC {cite('wiener')}."


def _software(run: Run, cite: Citations) -> list[str]:
    versions = run.summary.get("versions", {})
    if not versions:
        return []
    named = [
        f"NumPy {versions.get('numpy', '')} {cite('numpy')}",
        f"SciPy {versions.get('scipy', '')} {cite('scipy')}",
        f"Numba {versions.get('numba', '')} {cite('numba')}",
    ]
    return [
        f"Software: Python {versions.get('python', '')} with {', '.join(named)}; Snakemake {versions.get('snakemake', '')}; "
        f"seed of all random choices {run.config.project.seed}."
    ]
