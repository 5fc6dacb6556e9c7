"""What every job of the workflow does around its computing: log, progress, thread limits, one-line errors, a record.

    with start_job(snakemake) as job:
        particles = read_table(job.input.particles, kind="particles")
        ...

The log is the rule's `log:`; beside it stands a record (.json) of what went in and came out, settings, code, versions, threads,
CPU and wall seconds and peak memory, from which `nephila why` and results/summary.json are made.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nephila import __version__
from nephila.errors import NephilaError
from nephila.io.atomic import write_text
from nephila.run_records import changes, describe_files, peak_memory_mb, plain, read_record, seed_of

logger = logging.getLogger("nephila")


@dataclass(frozen=True)
class Job:
    """What a script sees of its Snakemake job."""

    input: Any
    output: Any
    params: Any
    wildcards: Any
    threads: int
    rule: str


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


@contextmanager
def start_job(snakemake: Any) -> Iterator[Job]:
    """Run the block as a job: everything logged goes to the rule's log; a user's error ends it with one line.

    BLAS and OpenMP are held to one thread: parallel work is done over blocks of particles or slabs, by `job.threads`.
    """
    began, cpu_at_start = time.time(), _cpu_seconds()
    log_path = Path(str(snakemake.log[0]))
    before = read_record(log_path.with_suffix(".json"))
    log_path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log_path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(handler)
    _limit_threads(snakemake.threads)
    logger.info("rule %s, nephila %s from %s, python %s, threads %d", snakemake.rule, __version__, Path(__file__).parent,
                sys.version.split()[0], snakemake.threads)  # fmt: skip
    try:
        yield Job(
            snakemake.input,
            snakemake.output,
            snakemake.params,
            snakemake.wildcards,
            int(snakemake.threads),
            str(snakemake.rule),
        )
    except NephilaError as error:
        message = " ".join(str(error).split())
        logger.error(message)
        sys.stderr.write(f"nephila: {snakemake.rule}: {message}\n")
        raise SystemExit(1) from None
    except Exception:
        logger.error(traceback.format_exc())
        sys.stderr.write(f"nephila: {snakemake.rule}: unexpected error, see {log_path}\n")
        raise SystemExit(1) from None
    finally:
        handler.flush()
    record = {
        "rule": str(snakemake.rule),
        "wildcards": dict(snakemake.wildcards.items()),
        "started": began,
        "wall_seconds": time.time() - began,
        "startup_cpu_seconds": cpu_at_start,
        "cpu_seconds": _cpu_seconds(),
        "peak_memory_mb": peak_memory_mb(),
        "threads": int(snakemake.threads),
        "host": os.uname().nodename,
        "version": __version__,
        **_provenance(snakemake),
    }
    record["why"] = changes(before, record)
    write_text(log_path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    logger.info("done in %.1f s, %.1f CPU s", record["wall_seconds"], record["cpu_seconds"])


def _provenance(snakemake: Any) -> dict[str, Any]:
    """Inputs and outputs as they are now, settings, code, and the modules and libraries behind it."""
    named = dict(snakemake.params.items()) if hasattr(snakemake.params, "items") else {}
    settings = plain(named)
    code = settings.pop("code", None)
    slurm = os.environ.get("SLURM_JOB_ID")
    return {
        "python": sys.version.split()[0],
        "code": code,
        "seed": seed_of(settings),
        "settings": settings,
        "inputs": describe_files(snakemake.input),
        "outputs": describe_files(snakemake.output),
        **({"slurm_job": slurm} if slurm else {}),
    }


def _limit_threads(threads: int) -> None:
    """One BLAS thread; numba's pool no larger than the job's threads."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    if "numba" in sys.modules:
        import numba

        numba.set_num_threads(max(1, min(threads, int(getattr(numba.config, "NUMBA_NUM_THREADS", 1)))))


class Progress:
    """Counts steps of a long loop; logs count, rate and time left at most every `every` seconds, and at the end.

    On a terminal the line is also shown there.
    """

    def __init__(self, total: int, what: str, every: float = 10.0) -> None:
        self.total, self.what, self.every = total, what, every
        self.done = 0
        self.began = self.last = time.monotonic()

    def step(self, number: int = 1) -> None:
        """Count `number` more."""
        self.done += number
        now = time.monotonic()
        if now - self.last < self.every and self.done < self.total:
            return
        self.last = now
        spent = max(now - self.began, 1e-6)
        rate = self.done / spent
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        line = f"{self.what}: {self.done} of {self.total}, {rate:.3g} per second, {left:.0f} s left"
        logger.info(line)
        if sys.stderr.isatty():
            print(f"\r{line}", end="" if self.done < self.total else "\n", file=sys.stderr, flush=True)
