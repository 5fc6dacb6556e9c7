"""What could be wrong with a refinement although its halves agree: a sentence for each doubt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from nephila.ctf import Optics
from nephila.job import logger
from nephila.refinement.findings import Finding
from nephila.refinement.merge import load_mask
from nephila.refinement.model import RefinementModel
from nephila.refinement.pose_check import FAR_DEG, check_poses
from nephila.refinement.pose_check import SUSPICIOUS as FAR_SHARE
from nephila.refinement.reference_check import HAND_LEAD, LARGEST_SCALE, check_reference
from nephila.refinement.settings import IterationSettings
from nephila.refinement.symmetry_check import SUSPICIOUS as ASYMMETRY
from nephila.refinement.symmetry_check import check_symmetry
from nephila.sampling import is_uniform
from nephila.symmetry import point_group_matrices

Float32 = npt.NDArray[np.float32]


def check_refinement(
    particles: pd.DataFrame,
    references: tuple[Float32, Float32],
    model: RefinementModel,
    volume: Float32,
    given: Float32,
    settings: IterationSettings,
    optics: Optics,
    threads: int = 1,
) -> list[Finding]:
    """Check the poses of the halves against each other, the point group, and hand and size against the given volume.

    Parameters
    ----------
    particles : in their last poses, of both half-sets
    references, model : of the last iteration
    volume : final filtered map; given : starting volume at the project's sampling, not low-passed
    """
    poses = check_poses(particles, references, model, settings, optics, threads)
    findings = [
        Finding("poses_median_deg", poses.median_deg, 0.0),
        Finding(
            "poses_share_far", poses.share_far, FAR_SHARE,
            f"{100 * poses.share_far:.0f} % of the particles take a pose more than {FAR_DEG:g} degrees away against the other "
            "half's map: many poses may be wrong although the half maps agree; look for pseudo-symmetry, junk, or a wrong start"
            if poses.doubtful else "none",
        ),
    ]  # fmt: skip
    symmetric = len(point_group_matrices(settings.symmetry)) > 1
    if symmetric and not is_uniform(particles):
        logger.info("the point group is not checked: that takes particles of the map's pixel size and box")
    elif symmetric:
        symmetry = check_symmetry(particles, model, settings, optics, threads)
        findings += [
            Finding(
                "asymmetry_agreement", symmetry.agreement, ASYMMETRY,
                f"without {settings.symmetry} both halves show the same asymmetry (correlation {symmetry.agreement:.2f}): "
                "the object seems to lack the symmetry; refine with particle.symmetry: C1 and compare"
                if symmetry.doubtful else "none",
            ),
            Finding("asymmetry_share", symmetry.share, 0.0),
        ]  # fmt: skip
    resolution = model.row.resolution_0143 or settings.start_resolution
    reference = check_reference(volume, given, load_mask(settings), settings.pixel_size, resolution)
    findings += [
        Finding("reference_correlation", reference.correlation, 0.0),
        Finding(
            "reference_correlation_mirrored", reference.mirrored, round(reference.correlation + HAND_LEAD, 4),
            f"the map's mirror image fits the given volume better ({reference.mirrored:.2f}) than the map "
            f"({reference.correlation:.2f}): the map may have the wrong hand"
            if reference.wrong_hand else "none",
        ),
        Finding(
            "reference_scale", reference.scale, LARGEST_SCALE,
            f"the map fits the given volume best when stretched by {reference.scale:.3f}: the pixel size of one of them is wrong "
            "(input.pixel_size, reference.pixel_size)"
            if reference.wrong_scale and max(reference.correlation, reference.mirrored) > 0.3 else "none",
        ),
    ]  # fmt: skip
    for finding in findings:
        if finding.doubt != "none":
            logger.warning("%s", finding.doubt)
    return findings
