"""A finished project made of made-up results, in seconds: what the review page shows is real, every other file is empty.

Snakemake is told (--touch) that all of it is up to date, so that its dry runs say what an edit leads to.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from workflow_runs import copy_code

from nephila.config import Config
from nephila.ctf import Optics, ctf_2d
from nephila.io.mrc import write_image, write_stack, write_volume
from nephila.io.tables import write_blocks, write_table
from nephila.refinement.model import Decision, IterationRow, RefinementModel, write_model

_MISSING = re.compile(r"^Output files not touched because they don't exist: (.*)$", re.MULTILINE)
BOX, SIDE, PIXEL, TILE, VIEWS = 24, 96, 4.0, 128, 12
DEFOCUS = (11100.0, 20600.0, 10750.0, 10840.0, 16300.0, 15860.0)
"""Of the first six micrographs; groups 1: 1, 3, 4; 2: 5, 6; 3: 2. Further ones follow between 10000 and 30000 A."""


def name_of(i: int) -> str:
    """Micrograph i, from 1."""
    return f"micrographs/mic_{i:04d}.mrc"


class Maker:
    """Writes the results of a run of `count` micrographs with `each` particles."""

    def __init__(self, folder: Path, count: int, each: int) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.count, self.each = count, each
        self.random = np.random.default_rng(8)
        more = np.linspace(10000, 30000, max(0, count - len(DEFOCUS)))
        self.defocus = np.array([*DEFOCUS, *more][:count])
        self.names = [name_of(i) for i in range(1, count + 1)]
        self.batch = np.arange(count) // 50 + 1
        self.group = self._groups()

    def _groups(self) -> np.ndarray:
        """As `defsort` with a width of 2500 A has them."""
        order = np.argsort(self.defocus, kind="stable")
        groups, lowest, number = np.zeros(self.count, dtype=int), -np.inf, 0
        for i in order:
            if self.defocus[i] - lowest > 2500:
                lowest, number = self.defocus[i], number + 1
            groups[i] = number
        return groups

    def inputs(self) -> None:
        config = Config().model_dump()
        config["project"]["name"] = "made-up"
        config["input"] |= {"micrographs": "micrographs/*.mrc", "pixel_size": PIXEL}
        config["particle"] |= {"diameter": 60.0, "box": BOX}
        config["reference"]["volume"] = "reference.mrc"
        config["defocus_groups"] |= {"method": "defsort", "width": 2500.0}
        config["refinement"]["iterations"] = 2
        config["jobs"]["micrographs_per_batch"] = 50
        self.folder.mkdir(parents=True)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))
        (self.folder / "micrographs").mkdir()
        image = self.random.normal(0, 1, (SIDE, SIDE)).astype(np.float32)
        write_image(self.folder / self.names[0], image, PIXEL)
        for name in self.names[1:]:
            shutil.copy(self.folder / self.names[0], self.folder / name)
        write_volume(self.folder / "reference.mrc", self._blob(BOX), PIXEL)

    def _blob(self, n: int) -> np.ndarray:
        z, y, x = (np.mgrid[0:n, 0:n, 0:n] - n // 2) / n
        return np.exp(-40 * (x**2 + 2 * y**2 + 4 * z**2)).astype(np.float32)

    def micrographs(self) -> None:
        write_table(
            self.results / "project/micrographs.star",
            pd.DataFrame(
                {"rlnMicrographName": self.names, "nphBatch": self.batch, "nphNumber": range(1, self.count + 1)}
            ),
            kind="micrographs",
        )
        resolution = np.where(np.arange(self.count) % 5 == 4, 12.0, 8.0) + 0.01 * np.arange(self.count)
        table = pd.DataFrame(
            {
                "rlnMicrographName": self.names, "nphBatch": self.batch, "rlnDefocusU": self.defocus + 100,
                "rlnDefocusV": self.defocus - 100, "rlnDefocusAngle": 30.0, "rlnCtfFigureOfMerit": 0.9,
                "rlnCtfMaxResolution": resolution, "nphDefocusError": 40.0, "nphScoreGap": 100.0, "nphRingAnisotropy": 1.1,
                "nphIceRing": 0.0, "nphForeignArea": 0.0, "nphKeep": 1, "nphReason": "none",
            }
        )  # fmt: skip
        for name in ("micrographs", "defocus"):
            write_table(self.results / f"ctf/{name}.star", table, kind="defocus")
        optics = Optics(**Config().optics.model_dump())
        for batch in np.unique(self.batch):
            mine = np.flatnonzero(self.batch == batch)
            ctf = ctf_2d(
                TILE,
                PIXEL,
                table["rlnDefocusU"][mine],
                table["rlnDefocusV"][mine],
                table["rlnDefocusAngle"][mine],
                optics,
            )
            half = np.fft.fftshift(ctf**2 + 0.5, axes=1)
            power = np.concatenate([half[:, :, :0:-1], half[:, :, :-1]], axis=2)
            write_stack(self.results / f"ctf/power/pw_avg_{batch:04d}.mrcs", power, PIXEL)
            frequency = np.arange(TILE // 2) / (TILE * PIXEL)
            rings = np.sin(np.pi * 0.0197 * self.defocus[mine][:, None] * frequency**2) ** 2
            rows = [
                pd.DataFrame({"rlnMicrographName": self.names[i], "nphSpatialFrequency": frequency, "nphPower": 1 + ring,
                              "nphBackground": 1.0, "nphSubtracted": ring, "nphEnvelope": np.where(frequency > 0.02, 1.0, 0.0)})
                for i, ring in zip(mine, rings, strict=True)
            ]  # fmt: skip
            write_table(self.results / f"ctf/power/roo_{batch:04d}.star", pd.concat(rows), block="profiles")
        order = np.lexsort((self.names, self.defocus))
        groups = pd.DataFrame(
            {
                "rlnMicrographName": np.array(self.names)[order],
                "nphDefocus": self.defocus[order],
                "nphDefocusGroup": self.group[order],
            }
        )
        for name in ("def_sort.proposed", "def_sort"):
            write_table(self.results / f"ctf/{name}.star", groups, kind="def_sort")

    def particles(self) -> None:
        m = np.repeat(np.arange(self.count), self.each)
        self.particle_group = self.group[m]
        self.view = np.arange(len(m)) % VIEWS + 1
        self.correlation = np.round(0.3 + 0.2 * self.random.random(len(m)), 6)
        number = np.tile(np.arange(1, self.each + 1), self.count)
        self.table = pd.DataFrame({"rlnMicrographName": np.array(self.names)[m], "nphParticleNumber": number})
        self.table["rlnCoordinateX"], self.table["rlnCoordinateY"] = 10.0 + number % 7 * 10, 10.0 + number % 8 * 9
        write_table(self.results / "particles/coordinates.star", self.table, block="particles")
        counts = pd.DataFrame({"rlnMicrographName": self.names, "nphCandidates": 2 * self.each, "nphPicked": self.each})
        write_table(self.results / "particles/picks_by_micrograph.star", counts, block="picks")
        shares = counts[["rlnMicrographName", "nphPicked"]].assign(nphSelected=self.each, nphPercent=100.0)
        write_table(self.results / "particles/percent_selected.star", shares, block="percent_selected")
        keep = (np.arange(len(m)) % 40 != 7).astype(int)
        good = self.table[["rlnMicrographName", "nphParticleNumber"]].assign(
            nphKeep=keep, nphReason=np.where(keep, "none", "dust")
        )
        for name in ("good.proposed", "good"):
            write_table(self.results / f"particles/{name}.star", good, kind="good")
        pictures = self.random.normal(0, 1, (64, BOX, BOX)).astype(np.float32) + 2 * self._blob(BOX)[BOX // 2]
        for batch in np.unique(self.batch):
            mine = np.flatnonzero(self.batch[m] == batch)
            stack = f"results/particles/win/winser_{batch:04d}.mrcs"
            write_stack(self.folder / stack, pictures[np.arange(len(mine)) % 64], PIXEL, "float16")
            names = [f"{i:06d}@{stack}" for i in range(1, len(mine) + 1)]
            write_table(
                self.folder / stack.replace("mrcs", "star"),
                self.table.iloc[mine].assign(rlnImageName=names),
                block="particles",
            )
        write_table(
            self.results / "particles/ngood.star",
            self.table[keep == 1].assign(rlnImageName="x@y", rlnOpticsGroup=1),
            kind="particles",
        )
        self.keep, self.pictures = keep == 1, pictures

    def alignment(self) -> None:
        zero = dict.fromkeys(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"), 0.0)
        thresholds, all_views = [], []
        for group in np.unique(self.group):
            rows = np.flatnonzero(self.keep & (self.particle_group == group))
            stack = f"results/alignment/group_{group:03d}/data.mrcs"
            write_stack(self.folder / stack, self.pictures[np.arange(len(rows)) % 64], PIXEL, "float16")
            table = self.table.iloc[rows].assign(
                rlnImageName=[f"{i:06d}@{stack}" for i in range(1, len(rows) + 1)], nphDefocusGroup=group,
                nphCorrelation=self.correlation[rows], **zero
            )  # fmt: skip
            write_table(self.folder / stack.replace("data.mrcs", "align.star"), table, kind="poses")
            cut = np.sort(self.correlation[rows])[int(0.15 * len(rows))]
            thresholds.append((group, np.floor(cut * 1e4) / 1e4))
            all_views.append(
                table.assign(nphView=self.view[rows])[
                    ["rlnMicrographName", "nphParticleNumber", "nphDefocusGroup", "nphCorrelation", "nphView"]
                ]
            )
            for half in (1, 2):
                write_volume(
                    self.results / f"reconstruction/group_{group:03d}/vol01_sub{half}.mrc", self._blob(BOX), PIXEL
                )
        views = pd.concat(all_views, ignore_index=True)
        write_table(self.results / "averages/ref_sel.star", views, block="ref_sel")
        cuts = pd.DataFrame(thresholds, columns=["nphDefocusGroup", "nphThreshold"])
        for name in ("thresh.proposed", "thresh"):
            write_table(self.results / f"averages/{name}.star", cuts, kind="thresh")
        self.averages(views)

    def averages(self, views: pd.DataFrame) -> None:
        numbers = np.arange(1, VIEWS + 1)
        directions = pd.DataFrame({"nphView": numbers, "rlnAngleRot": 30.0 * numbers, "rlnAngleTilt": 7.0 * numbers})
        parts = []
        for group in [0, *np.unique(self.group)]:
            mine = views if group == 0 else views[views["nphDefocusGroup"] == group]
            counts = np.bincount(mine["nphView"], minlength=VIEWS + 1)[1:]
            parts.append(directions.assign(nphDefocusGroup=group, nphParticles=counts))
        write_table(self.results / "averages/how_many.star", pd.concat(parts, ignore_index=True), block="how_many")
        write_table(
            self.results / "averages/averages.star",
            parts[0].drop(columns="nphDefocusGroup").assign(nphCorrelation=0.4),
            block="averages",
        )
        write_stack(
            self.results / "averages/averages.mrcs", np.repeat(self._blob(BOX)[BOX // 2][None], VIEWS, axis=0), PIXEL
        )

    def volumes(self) -> None:
        blob = self._blob(BOX)
        groups = np.unique(self.group)
        for name in ("vol01", "volfq01", "vol01_half1", "vol01_half2"):
            write_volume(self.results / f"reconstruction/{name}.mrc", blob, PIXEL)
        for name in ("map", "map_filtered", "half1", "half2"):
            write_volume(self.results / f"refinement/{name}.mrc", blob, PIXEL)
        write_stack(
            self.results / "reconstruction/central_slices.mrcs",
            np.repeat(blob[BOX // 2][None], len(groups), axis=0),
            PIXEL,
        )
        table = pd.DataFrame({"nphDefocusGroup": [0, *groups], "nphResolutionHalf": 20.0, "nphResolution": 15.0})
        write_blocks(self.results / "reconstruction/resolution.star", {"resolution": table})
        shells = np.linspace(1, 0, BOX // 2 + 1)
        for i in range(3):
            model = RefinementModel(IterationRow(iteration=i), Decision(), shells, shells, shells)
            path = self.results / f"refinement/iter_{i:02d}/model.star"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_model(path, model, PIXEL, BOX)


def make(folder: Path, count: int = 6, each: int = 20) -> Path:
    """A project whose results can be looked at; Snakemake knows nothing of them yet."""
    maker = Maker(folder, count, each)
    maker.inputs()
    maker.micrographs()
    maker.particles()
    maker.alignment()
    maker.volumes()
    return folder


def finish(code: Path, folder: Path) -> Path:
    """Tell Snakemake that the project is finished: empty files for what is missing, and all of it up to date."""
    for _ in range(2):  # groups are known, and their files asked for, once the first round has passed the checkpoints
        text = _snakemake(code, folder, "--touch", "--cores", "1")
        missing = [name for line in _MISSING.findall(text) for name in line.split(", ")]
        for path in (folder / name for name in missing):
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            else:
                path.mkdir(parents=True)
                (path / "nothing.txt").touch()
    return folder


def _snakemake(code: Path, folder: Path, *words: str) -> str:
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(code / "Snakefile"),
        "--directory",
        str(folder),
        *words,
    ]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(code)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def copy(source: Path, target: Path) -> Path:
    """A project with all its times."""
    shutil.copytree(source, target, symlinks=True)
    return target


__all__ = ["copy", "copy_code", "finish", "make", "name_of"]
