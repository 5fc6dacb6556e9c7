"""What in a run deserves a second look: each finding with its value, the limit that it passes, and what can be done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.defocus_by_hand import REASON as BY_HAND
from nephila.fsc import MASK_CORRELATION
from nephila.fsc import mask_correlation as curves_mask_correlation
from nephila.fsc import mask_share as share_of_noise
from nephila.geometry import view_direction
from nephila.initial_tries import DARK, agreeing_tries, agreement_limit, looks_dark
from nephila.project import FINAL_MASK
from nephila.report.collect import Run, rows_of
from nephila.symmetry import point_group_matrices
from nephila.views import angular_distribution

DROPPED_SHARE = 0.2
"""More micrographs dropped than this share: the data or the limits are at fault, not single micrographs."""
IN_PHASE = 0.3
"""Correlation of a micrograph's measured rings with the CTF of its group."""
FEW_PICKS = 0.3
"""A micrograph with fewer picks than this share of the median stands out."""
DENSEST_VIEW = 3.0
"""Particles in a direction over those of an even distribution."""
CERTAIN = 5.0
"""Standard deviations beyond chance that a count must lie before it is called uneven."""
COVERAGE = 0.25
"""Least coverage of a direction of Fourier space, in means."""
COVERAGE_WIDTH = 8.0
"""Half the thickness of the slab of directions that cover a direction of Fourier space, degrees."""
TAIL = 0.1
"""Mean FSC of the last tenth of the shells."""
NEAR_NYQUIST = 1.1
"""A resolution within this factor of Nyquist is limited by the pixel size."""
MASK_GAIN = 0.1
"""FSC inside the mask beyond what the whole maps allow, mean of three shells."""
JOIN_MARGIN = 1.25
"""A resolution must be finer than the joined shells by this factor to say anything about the halves."""
DEFECTIVE_GROUP = 2.0
"""A group whose resolution is coarser than the others' median by this factor."""
WORSE_THAN_TRUTH = 1.15
"""Resolution over that which the true poses give."""
RESULT_TITLES = {
    "poses_share_far": "Many poses may be wrong",
    "asymmetry_agreement": "The object seems to lack the symmetry",
    "reference_correlation_mirrored": "The map may have the wrong hand",
    "reference_scale": "A pixel size may be wrong",
}
"""Titles of the doubts in checks.star."""
MOST_PARTICLES = 20000
"""Directions are judged by at most this many particles, evenly taken."""


@dataclass(frozen=True)
class Finding:
    """One thing to look at.

    stage: section of the report; level: `warning` (the result may be wrong or better) or `note`; title: what; value and limit: as
    measured and allowed, in words; advice: what to do; rows: single cases (name, what about it).
    """

    check: str
    stage: str
    level: Literal["warning", "note"]
    title: str
    value: str
    limit: str
    advice: str
    rows: tuple[tuple[str, str], ...] = ()


def check_run(run: Run) -> list[Finding]:
    """All findings: warnings first, otherwise in the order of the stages."""
    stages = (_micrographs, _groups, _rings, _picks, _initial_model, _first_maps, _refinement)
    parts = (*stages, _fsc, _result, _views, _truth)
    found = [finding for part in parts for finding in part(run)]
    return sorted(found, key=lambda finding: finding.level != "warning")


def _micrographs(run: Run) -> Iterator[Finding]:
    selection = run.table("selection")
    if selection is None or not len(selection):
        return
    dropped = selection[selection["nphKeep"] == 0]
    share = len(dropped) / len(selection)
    if len(dropped):
        rows = tuple(
            (str(n), reason_words(r)) for n, r in zip(dropped["rlnMicrographName"], dropped["nphReason"], strict=True)
        )
        much = share > DROPPED_SHARE
        yield Finding(
            "dropped", "micrographs", "warning" if much else "note",
            f"{_number(len(dropped), 'micrograph')} left out",
            f"{len(dropped)} of {len(selection)} ({share:.0%})",
            f"warned above {DROPPED_SHARE:.0%}; limits of single micrographs: ctf.screening in config.yaml",
            "Look at their spectra below. To keep one, or to leave out another, write edits/sel_micrograph.star."
            + (" With so many, check pixel size, voltage and Cs first." if much else ""),
            rows,
        )  # fmt: skip
    yield from _by_hand(run)
    doubted = _kept_against_advice(run)
    if doubted:
        yield Finding(
            "kept_by_edit", "micrographs", "note", f"{_number(len(doubted), 'micrograph')} kept against the proposal",
            str(len(doubted)), "what the proposal would leave out", "Your edit keeps them; see whether their groups suffer.",
            doubted,
        )  # fmt: skip


def _by_hand(run: Run) -> Iterator[Finding]:
    table, fits = run.table("micrographs"), run.table("fits")
    if table is None or fits is None:
        return
    mine = table[table["nphReason"] == BY_HAND].merge(fits, on="rlnMicrographName", suffixes=("", "_fit"))
    if not len(mine):
        return
    moved = (mine["rlnDefocusU"] + mine["rlnDefocusV"] - mine["rlnDefocusU_fit"] - mine["rlnDefocusV_fit"]) / 2
    rows = tuple(
        (str(name), f"{by:+.0f} Å from the fit" if fitted else "there was no fit")
        for name, by, fitted in zip(mine["rlnMicrographName"], moved, mine["rlnDefocusU_fit"] > 0, strict=True)
    )
    yield Finding(
        "by_hand", "micrographs", "note", f"{_number(len(mine), 'micrograph')} fitted by hand", str(len(mine)), "none",
        "Their defoci stand in edits/defocus.star; see below whether the groups' rings agree with them.", rows,
    )  # fmt: skip


def _kept_against_advice(run: Run) -> tuple[tuple[str, str], ...]:
    proposal, selection = run.table("proposal"), run.table("selection")
    if proposal is None or selection is None:
        return ()
    kept = set(selection.loc[selection["nphKeep"] == 1, "rlnMicrographName"])
    against = proposal[(proposal["nphKeep"] == 0) & proposal["rlnMicrographName"].isin(kept)]
    return tuple(
        (str(n), reason_words(r)) for n, r in zip(against["rlnMicrographName"], against["nphReason"], strict=True)
    )


def reason_words(text: object) -> str:
    """Why a micrograph was left out, in words."""
    return "left out by your edit" if str(text) == "none" else str(text)


def _rings(run: Run) -> Iterator[Finding]:
    phases = run.table("phases")
    if phases is None:
        return
    measured = phases[phases["nphInPhase"] != 0]  # 0 stands for no rings to look at
    bad = measured[measured["nphInPhase"] < IN_PHASE]
    if len(bad):
        rows = tuple(
            (str(name), f"group {int(group)}: {value:.2f}")
            for name, group, value in zip(
                bad["rlnMicrographName"], bad["nphDefocusGroup"], bad["nphInPhase"], strict=True
            )
        )
        yield Finding(
            "rings", "groups", "warning", f"{_number(len(bad), 'micrograph')} whose rings are not the group's",
            f"correlation with the group's CTF down to {bad['nphInPhase'].min():.2f}", f"{IN_PHASE:g}",
            "Look at the group's rings: the defocus of the micrograph is wrong, or the group is too wide. Move it in "
            "edits/def_sort.star, or leave it out in edits/sel_micrograph.star.", rows,
        )  # fmt: skip


def _groups(run: Run) -> Iterator[Finding]:
    groups = run.table("groups")
    if groups is None or "nphPhaseErrorLimit" not in groups:
        return
    group_ctf = run.config.refinement.ctf == "group"
    reached = run.resolution if group_ctf else _first_resolution(run)
    if not reached:
        return
    bad = groups[groups["nphPhaseErrorLimit"] > reached]
    if not len(bad):
        return
    where = "final" if group_ctf else "first"
    rows = tuple(
        (f"group {int(row.nphDefocusGroup)}", f"in phase to {row.nphPhaseErrorLimit:.2f} Å: a micrograph lies "
         f"{row.nphWorstDeviation:.0f} Å from the group's defocus")
        for row in rows_of(bad)
    )  # fmt: skip
    yield Finding(
        "phase", "groups", "warning", f"{_number(len(bad), 'defocus group')} out of phase",
        f"in phase only to {bad['nphPhaseErrorLimit'].max():.2f} Å", f"the {where} map's resolution, {reached:.2f} Å",
        "Narrow the groups (defocus_groups.width), sort with defocus_groups.method: optimal, move the micrographs in "
        "edits/def_sort.star" + (", or give each particle its own CTF (refinement.ctf: particle)." if group_ctf else "."),
        rows,
    )  # fmt: skip


def _first_resolution(run: Run) -> float | None:
    table = run.table("first_resolution")
    if table is None:
        return None
    overall = table.loc[table["nphDefocusGroup"] == 0, "nphResolution"]
    return float(overall.iloc[0]) or None if len(overall) else None


def _picks(run: Run) -> Iterator[Finding]:
    picks, selection = run.table("picks"), run.table("selection")
    if picks is None or selection is None or not len(picks):
        return
    used = picks[picks["rlnMicrographName"].isin(selection.loc[selection["nphKeep"] == 1, "rlnMicrographName"])]
    middle = float(used["nphPicked"].median()) if len(used) else 0.0
    few = used[used["nphPicked"] < FEW_PICKS * middle]
    if len(few):
        rows = tuple(
            (str(n), f"{int(c)} picks") for n, c in zip(few["rlnMicrographName"], few["nphPicked"], strict=True)
        )
        yield Finding(
            "few_picks", "picks", "note", f"{_number(len(few), 'micrograph')} with few picks",
            f"{int(few['nphPicked'].min())} picks and more", f"{FEW_PICKS:.0%} of the median, {FEW_PICKS * middle:.0f}",
            "Look at these micrographs: thick or empty ice, or carbon. If particles are missed, lower picking.threshold.", rows,
        )  # fmt: skip


def _initial_model(run: Run) -> Iterator[Finding]:
    tries = run.table("initial")
    if tries is None or not len(tries) or run.config.reference.volume:
        return
    if looks_dark(tries):
        yield Finding(
            "initial_contrast", "reconstruction", "warning", "The initial model is darker than the solvent",
            f"skewness {tries['nphSkewness'].iloc[0]:.1f}", f"warned below {DARK:g}",
            "Images of either contrast give a model. If protein is dark in this one, input.contrast is wrong.",
        )  # fmt: skip
        return
    number, agreeing = len(tries), agreeing_tries(tries)
    if number > 1 and not agreeing:
        yield Finding(
            "initial_tries", "reconstruction", "warning", "The initial model may be wrong",
            f"none of {number - 1} other tries agrees with it", f"warned where none agrees to {agreement_limit(tries):.0f} Å",
            "Look at results/reference/initial.mrc. Raise reference.initial.tries or particles, leave poor particles out, or "
            "give a volume (reference.volume).",
        )  # fmt: skip
        return
    hand = "mirror image of the likeliest try" if run.config.reference.initial.mirror else "likeliest try, as it came"
    yield Finding(
        "initial_hand", "reconstruction", "note", "The hand of the map is not known", hand,
        "particles cannot tell an object from its mirror image",
        "Where helices or a known structure show the wrong hand, set reference.initial.mirror and run again, or mirror the map.",
    )  # fmt: skip


def _first_maps(run: Run) -> Iterator[Finding]:
    table, kept = run.table("first_resolution"), run.table("kept")
    if table is None or kept is None:
        return
    groups = table[table["nphDefocusGroup"] != 0].merge(kept[["nphDefocusGroup", "nphParticles"]], on="nphDefocusGroup")
    if len(groups) < 3:
        return
    # a group with fewer particles is coarser for that alone: about with the fourth root of their number
    fair = groups["nphResolutionHalf"] * (groups["nphParticles"] / groups["nphParticles"].median()) ** 0.25
    resolved = groups["nphResolutionHalf"] > 0
    limit = DEFECTIVE_GROUP * float(fair[resolved].median()) if resolved.any() else np.inf
    bad = groups[(fair > limit) | ~resolved]
    if len(bad) and resolved.any():
        rows = tuple(
            (f"group {int(row.nphDefocusGroup)}", f"{row.nphResolutionHalf:.1f} Å at FSC 0.5" if row.nphResolutionHalf else
             "nothing is resolved")
            for row in rows_of(bad)
        )  # fmt: skip
        yield Finding(
            "defective_group", "reconstruction", "warning", f"{_number(len(bad), 'defocus group')} much worse than the others",
            rows[0][1], f"{limit:.1f} Å, {DEFECTIVE_GROUP:g} times the groups' median",
            "Look at the group's slice and at its micrographs' CTF. Leave them out in edits/sel_micrograph.star if they are at "
            "fault.", rows,
        )  # fmt: skip


def _refinement(run: Run) -> Iterator[Finding]:
    iterations = run.table("iterations")
    refinement = run.config.refinement
    if iterations is not None and len(iterations) > 1 and not int(iterations["nphConverged"].iloc[-1]):
        last = iterations.iloc[-1]
        yield Finding(
            "not_converged", "refinement", "warning", "The refinement ended before it stood still",
            f"median turn {last['nphMovedAngle']:.2f} degrees in iteration {int(last['nphIteration'])}",
            f"refinement.iterations: {refinement.iterations}",
            "Raise refinement.iterations and run again: only the new iterations are computed.",
        )  # fmt: skip
    if refinement.halves == "shared":
        yield Finding(
            "shared_halves", "refinement", "warning", "The halves are not independent", "refinement.halves: shared",
            "independent", "Both halves were aligned to one reference, so that the FSC claims too much. For a resolution to state, "
            "use refinement.halves: independent.",
        )  # fmt: skip
    joined = refinement.join_resolution
    if run.resolution and joined and refinement.halves == "independent" and run.resolution * JOIN_MARGIN > joined:
        yield Finding(
            "joined", "refinement", "warning", "The resolution lies where the halves are joined", f"{run.resolution:.2f} Å",
            f"{joined / JOIN_MARGIN:.1f} Å, {JOIN_MARGIN:g} times finer than refinement.join_resolution",
            "Agreement there proves nothing: the halves share these shells. Set refinement.join_resolution to 0 and see what is "
            "left; the data may hold no signal.",
        )  # fmt: skip
    if run.summary.get("resolution") and run.resolution is None:
        yield Finding(
            "unresolved", "refinement", "warning", "Nothing is resolved", "FSC below 0.143 in the first shell", "0.143",
            "Check the contrast (input.contrast), the pixel size, the reference and the picks.",
        )  # fmt: skip


def _fsc(run: Run) -> Iterator[Finding]:
    fsc = run.table("fsc")
    if fsc is None or len(fsc) < 10:
        return
    curve = fsc["rlnFourierShellCorrelation"].to_numpy(dtype=np.float64)
    tail = float(curve[-max(3, len(curve) // 10) :].mean())
    if tail > TAIL:
        yield Finding(
            "fsc_tail", "refinement", "warning", "The FSC does not fall to zero", f"{tail:.2f} on average in the last tenth",
            f"{TAIL:g}",
            "Either the pixels are too coarse (input.decimate), or the halves share something: particles picked twice "
            "(particles.duplicate_distance), particles already in use in both halves, or a mask that is too tight.",
        )  # fmt: skip
    nyquist = 2 * run.config.pixel_size
    if run.resolution and run.resolution < NEAR_NYQUIST * nyquist:
        yield Finding(
            "nyquist", "refinement", "note", "The pixel size limits the resolution", f"{run.resolution:.2f} Å",
            f"{NEAR_NYQUIST * nyquist:.2f} Å, {NEAR_NYQUIST:g} times Nyquist",
            "Use the micrographs with less binning (input.decimate), if there are finer ones.",
        )  # fmt: skip
    made = mask_correlation(fsc, mask_share(run))
    if made > MASK_CORRELATION:
        yield Finding(
            "tight_mask", "refinement", "warning", "The mask is too tight",
            f"phase-randomised maps correlate to {made:.2f}", f"{MASK_CORRELATION:g}",
            "The mask itself makes the halves alike. Give it a wider edge (refinement.mask.edge) or a larger diameter, or a "
            "smoother file.",
        )  # fmt: skip
    gain = mask_gain(fsc, mask_share(run))
    if gain > MASK_GAIN:
        yield Finding(
            "mask_gain", "refinement", "warning", "The mask gains more than it can",
            f"FSC {gain:.2f} above what the unmasked maps allow", f"{MASK_GAIN:g}",
            "Less solvent explains a part of the masked FSC alone: the mask follows noise that the halves share, or holds only the "
            "best part of the map. Make it from a map filtered to 15 Å or coarser, with an edge of several pixels.",
        )  # fmt: skip


def _result(run: Run) -> Iterator[Finding]:
    """What the refinement doubts about its own result (checks.star); the doubt says what to do."""
    table = run.table("checks")
    if table is None:
        return
    for row in rows_of(table[table["nphReason"] != "none"]):
        title = RESULT_TITLES.get(str(row.nphName), str(row.nphName).replace("_", " "))
        doubt = str(row.nphReason).replace("`", "'")  # STAR holds no quotes
        yield Finding(
            str(row.nphName), "refinement", "warning", title, f"{row.nphMeasured:.3g}", f"{row.nphLimit:.3g}",
            f"{doubt[:1].upper()}{doubt[1:].rstrip('.')}.",
        )  # fmt: skip


def mask_share(run: Run) -> float:
    """Share of the noise that the mask lets through: that of the mask used, else about that of its sphere."""
    mask = run.config.refinement.mask
    for path in (run.folder / FINAL_MASK, *([run.folder / mask.file] if mask.file else [])):
        if path.is_file():
            from nephila.io.mrc import read_volume

            return share_of_noise(read_volume(path)[0])
    diameter = mask.diameter or 1.1 * run.config.particle.diameter
    return float(np.clip(np.pi / 6 * (diameter / (run.config.box * run.config.pixel_size)) ** 3, 1e-3, 1.0))


def mask_gain(fsc: pd.DataFrame, share: float) -> float:
    """How far the FSC inside the mask (corrected) lies above what the whole maps allow, largest mean over three shells.

    A mask that keeps the signal and this share of the noise turns a ratio r of signal to noise, FSC = r / (1 + r), into r / share.
    The unmasked FSC counts with 3 standard deviations of chance (2 pi k^2 independent values at shell k); 0 where there is none.
    """
    name = "rlnFourierShellCorrelationUnmaskedMaps"
    if name not in fsc or len(fsc) < 5:
        return 0.0
    unmasked, masked = (fsc[column].to_numpy(dtype=np.float64)[1:] for column in (name, "rlnFourierShellCorrelation"))
    chance = 3 / np.sqrt(2 * np.pi * np.arange(1, len(unmasked) + 1) ** 2)
    most = np.clip(unmasked + chance, 0.0, 0.999)
    allowed = most / (most + (1 - most) * share)
    return float(np.max(np.convolve(masked - allowed, np.full(3, 1 / 3), mode="valid"), initial=0.0))


def mask_correlation(fsc: pd.DataFrame, share: float = 1.0) -> float:
    """`fsc.mask_correlation` of a final FSC table; 0 where it has no such curves."""
    names = ("rlnFourierShellCorrelationUnmaskedMaps", "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps")
    if any(name not in fsc for name in names):
        return 0.0
    unmasked, randomised = (fsc[name].to_numpy(dtype=np.float64) for name in names)
    return curves_mask_correlation(unmasked, randomised, share)


def _views(run: Run) -> Iterator[Finding]:
    particles = run.table("particles")
    if particles is None or len(particles) < 50:
        return
    taken = particles.iloc[:: -(-len(particles) // MOST_PARTICLES)]
    operators = point_group_matrices(run.config.particle.symmetry)
    seen = view_direction(taken["rlnAngleRot"].to_numpy(), taken["rlnAngleTilt"].to_numpy())
    density, certain = densest_view(seen, operators)
    if density > DENSEST_VIEW and certain > CERTAIN:
        yield Finding(
            "crowded_view", "views", "warning", "Some views are over-represented",
            f"{density:.1f} times the particles of an even distribution", f"{DENSEST_VIEW:g} times",
            "Limit the particles of each view (thresholds.best_per_view) and compare the maps; for new data, tilt the stage or "
            "change the grid.",
        )  # fmt: skip
    least, beyond = least_coverage(seen, operators)
    if least < COVERAGE and beyond > CERTAIN:
        yield Finding(
            "coverage", "views", "warning", "Directions of Fourier space are hardly covered",
            f"{least:.2f} of the mean coverage", f"{COVERAGE:g}",
            "The map is smeared along these directions, and the FSC does not show it. Look at the map from the side; more views "
            "(tilted data) are the cure.",
        )  # fmt: skip


def densest_view(seen: npt.NDArray[np.float64], operators: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Density of the most crowded direction over an even distribution, and how many standard deviations it is beyond it.

    seen: view directions [n, 3]; operators: rotations that leave the object unchanged [s, 3, 3].
    """
    whole = np.concatenate([seen @ s for s in operators])
    rot, tilt = np.rad2deg(np.arctan2(whole[:, 1], whole[:, 0])), np.rad2deg(np.arccos(np.clip(whole[:, 2], -1, 1)))
    rings = int(np.clip(np.sqrt(len(seen) / 24), 3, 8))
    found = angular_distribution(rot, tilt, rings)
    even = len(whole) / len(found.counts)
    # on an axis of symmetry one particle counts several times: its copies are no evidence of their own
    spread = np.sqrt(even * _copies(operators))
    return float(found.density.max()), float((found.counts.max() - even) / spread)


def _copies(operators: npt.NDArray[np.float64]) -> int:
    """Most copies of a particle that can fall into one direction: the highest rotation axis."""
    turns = np.arccos(np.clip((np.trace(operators, axis1=1, axis2=2) - 1) / 2, -1, 1))
    smallest = turns[turns > 1e-3].min(initial=2 * np.pi)
    return round(2 * np.pi / float(smallest))


def least_coverage(seen: npt.NDArray[np.float64], operators: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Coverage of the least covered direction of Fourier space over the mean, and how many standard deviations it is below it.

    A projection fills the plane across its view. A direction is covered by the particles whose plane passes within
    `COVERAGE_WIDTH` degrees of it.
    """
    whole = np.concatenate([seen @ s for s in operators])
    whole = whole[:: -(-len(whole) // MOST_PARTICLES)].astype(np.float32)
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(400)
    height = (np.arange(400) + 0.5) / 400
    radius = np.sqrt(1 - height**2)
    probes = np.stack([radius * np.cos(turn), radius * np.sin(turn), height]).astype(np.float32)
    covered = (np.abs(whole @ probes) < np.sin(np.deg2rad(COVERAGE_WIDTH))).sum(axis=0)
    mean, least = max(float(covered.mean()), 1e-9), float(covered.min())
    return least / mean, (mean - least) / float(np.sqrt(mean * _copies(operators)))


def _truth(run: Run) -> Iterator[Finding]:
    ratio = run.summary.get("truth", {}).get("ratio_to_true_poses")
    if ratio and ratio > WORSE_THAN_TRUTH:
        yield Finding(
            "truth", "refinement", "warning", "True poses would give a finer map", f"{ratio:.2f} times coarser",
            f"{WORSE_THAN_TRUTH:g}", "The alignment is at fault: finer steps, more exhaustive passes, a better reference.",
        )  # fmt: skip


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
