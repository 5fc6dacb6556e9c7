"""A project as the review page finds it: the tables that edits are about, without images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

from nephila.config import Config
from nephila.io.tables import write_table

NAMES = [f"micrographs/mic_{i}.mrc" for i in range(1, 6)]
DEFOCUS = [10000.0, 10100.0, 15000.0, 15200.0, 20000.0]
CORRELATIONS = [0.9, 0.8, 0.7, 0.6, 0.5]


def small_project(folder: Path) -> Path:
    """Five micrographs, of which the last is proposed for dropping; particles of two of them; two groups aligned."""
    config = Config().model_dump()
    config["defocus_groups"] |= {"method": "defsort", "width": 1000.0}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    results = folder / "results"
    table = pd.DataFrame(
        {
            "rlnMicrographName": NAMES,
            "nphBatch": 1,
            "rlnDefocusU": [z + 50 for z in DEFOCUS],
            "rlnDefocusV": [z - 50 for z in DEFOCUS],
            "rlnDefocusAngle": 0.0,
            "nphKeep": [1, 1, 1, 1, 0],
            "nphReason": ["none"] * 4 + ["crystalline ice"],
        }
    )
    write_table(results / "ctf" / "micrographs.star", table, kind="defocus")
    good = pd.DataFrame({"rlnMicrographName": NAMES[:1] * 3 + NAMES[1:2] * 2, "nphParticleNumber": [1, 2, 3, 1, 2]})
    good = good.assign(nphKeep=[1, 1, 0, 1, 1], nphReason=["none", "none", "dust", "none", "none"])
    write_table(results / "particles" / "good.proposed.star", good, kind="good")
    for group in (1, 2):
        poses = {
            name: 0.0 for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
        }
        rows = pd.DataFrame(
            {"nphCorrelation": CORRELATIONS, "nphDefocusGroup": group, "nphParticleNumber": range(1, 6)}
        )
        rows = rows.assign(rlnImageName="000001@s.mrcs", rlnMicrographName=NAMES[0], **poses)
        write_table(results / f"alignment/group_00{group}/align.star", rows, kind="poses")
    proposed = pd.DataFrame({"nphDefocusGroup": [1, 2], "nphThreshold": [0.55, 0.55]})
    write_table(results / "averages" / "thresh.proposed.star", proposed, kind="thresh")
    return folder
