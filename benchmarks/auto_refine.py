"""RELION's 3D auto-refine as the benchmarks run it: once for each folder, with the CPU time of its workers."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOCAL_ORDER = 4  # RELION's default
WORKER = 'relion_refine_mpi "$@"; status=$?; times > "cpu_$OMPI_COMM_WORLD_RANK.txt"; exit $status'


@dataclass(frozen=True)
class AutoRefine:
    """Settings of a run on particles.star, reference.mrc and mask.mrc of a folder.

    diameter: of the particle's mask, A; start: the reference's low pass, A; local_order: HEALPix order of the first local search;
    absolute: whether the reference has the scale of the images, without which RELION's first pass compares by correlation
    """

    diameter: float
    start: float
    symmetry: str = "C1"
    local_order: int = LOCAL_ORDER
    absolute: bool = True

    def place(self, folder: Path) -> Path:
        """Where the run in this folder is kept."""
        return folder / ("relion" if self.local_order == LOCAL_ORDER else f"relion_local_{self.local_order}")


def installed() -> bool:
    """Whether RELION's parallel refinement is on PATH."""
    return shutil.which("relion_refine_mpi") is not None


def auto_refine(folder: Path, settings: AutoRefine) -> tuple[float, float]:
    """Run it where it has not run. CPU seconds of its two workers, and of everything (the master waits at full speed)."""
    place = settings.place(folder)
    record = place / "cpu.json"
    if record.exists():
        times = json.loads(record.read_text())
        return times["workers"], times["all"]
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    command = [
        *("mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3", "sh", "-c", WORKER, "sh"),
        *("--o", f"{place.name}/run", "--auto_refine", "--split_random_halves", "--i", "particles.star"),
        *("--ref", "reference.mrc", "--ini_high", str(settings.start), "--ctf", "--ctf_corrected_ref", "--pad", "2"),
        *("--particle_diameter", f"{settings.diameter:.1f}", "--flatten_solvent", "--zero_mask"),
        *("--solvent_mask", "mask.mrc", "--solvent_correct_fsc", "--oversampling", "1", "--healpix_order", "2"),
        *("--auto_local_healpix_order", str(settings.local_order), "--sym", settings.symmetry),
        *("--offset_range", "5", "--offset_step", "2"),
        *("--low_resol_join_halves", "40", "--norm", "--scale", "--j", "1", "--random_seed", "1", "--pool", "30"),
        *("--dont_combine_weights_via_disc", "--preread_images"),
        *([] if settings.absolute else ["--firstiter_cc"]),
    ]
    with open(place / "log.txt", "w", encoding="utf-8") as log:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    everything = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    workers = sum(_children_seconds(folder / f"cpu_{rank}.txt") for rank in (1, 2))
    record.write_text(json.dumps({"workers": workers, "all": everything}))
    return workers, everything


def _children_seconds(path: Path) -> float:
    """User and system time of a shell's children, from the second line of `times`."""
    parts = path.read_text().split("\n")[1].split()
    return sum(
        60 * float(minutes) + float(seconds.rstrip("s")) for minutes, _, seconds in (p.partition("m") for p in parts)
    )
