"""The targets at which a run can stop, and the stage that each rule belongs to."""

from __future__ import annotations

from collections.abc import Collection

STAGES = ("ctf", "defocus_groups", "picks", "particles", "alignment", "thresholds", "reconstruction", "refinement")
"""In order."""

STAGE_OF_RULE = {
    "makeparams": "project", "makefilelist": "project", "resizevol": "project",
    "powdefocus": "ctf", "ctffind": "ctf", "ring_strength": "ctf", "ctffind_pooled": "ctf", "import_ctf": "ctf",
    "merge_ctf": "ctf", "defocus": "ctf", "powchk": "ctf", "sel_micrograph": "ctf",
    "defsort": "defocus_groups", "def_sort": "defocus_groups",
    "defavg": "defocus_groups", "plotgroups": "defocus_groups", "noise": "picks", "pick": "picks",
    "lfc_pick": "picks", "merge_coordinates": "picks", "extract_windows": "particles", "picking_figures": "particles",
    "pfilt": "particles", "propose_good": "particles", "good": "particles", "renumber": "particles", "sel_by_group": "alignment",
    "win2stk": "alignment", "initial_model": "alignment", "refproj": "alignment", "refproj_ctf": "alignment",
    "apshgrp": "alignment",
    "select": "thresholds", "average": "thresholds", "average_all": "thresholds",
    "cchistogram": "thresholds", "ccthresh": "thresholds", "thresh": "thresholds",
    "dftotals": "thresholds", "bestim": "thresholds", "sel_group_cclim": "thresholds", "plotrefviews": "thresholds",
    "recon": "reconstruction", "merge_recon": "reconstruction", "filt": "reconstruction", "slices": "reconstruction",
    "plotres": "reconstruction",
}  # fmt: skip
"""Rules of the refinement are those not named here."""


def last_stage(targets: Collection[str]) -> str | None:
    """The last of the stages among the targets; None where there is none, or the refinement: the whole run."""
    named = [stage for stage in STAGES[:-1] if stage in targets]
    return named[-1] if named and STAGES[-1] not in targets else None
