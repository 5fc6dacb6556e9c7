# Glue between Snakemake and the package: the checked configuration, and the functions that name files by batch, group and chunk.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir)))

from nephila import plan, resources
from nephila.config import parse_config
from nephila.errors import InputError, NephilaError, stable_hash
from nephila.parameters import project_parameters
from nephila.project import FINAL_MASK, open_project, refuse_hand_fits
from nephila.provenance import source_hash
from nephila.report import template_hash

ENVIRONMENT = str(Path(workflow.basedir) / "envs" / "nephila.yaml")


def checked(function):
    """Let a user's error end Snakemake with its one line, and not with the trace that Snakemake adds to exceptions."""

    def wrapper(*arguments):
        try:
            return function(*arguments)
        except NephilaError as error:
            sys.stderr.write(f"nephila: {' '.join(str(error).split())}\n")
            sys.exit(1)

    return wrapper


CONFIG = checked(parse_config)(dict(config), "config.yaml")
PROJECT = checked(open_project)(CONFIG)
checked(refuse_hand_fits)(CONFIG, Path("edits/defocus.star"))
ITERATIONS = [f"{i:02d}" for i in range(1, CONFIG.refinement.iterations + 1)]
LAST = ITERATIONS[-1]


wildcard_constraints:
    batch=r"\d{4}",
    part=r"\d{4}",
    group=r"\d{3}",
    chunk=r"\d{4}",
    half="[12]",
    iter=r"(?!00)\d{2}",


# on a cluster these run where Snakemake runs: they take a second and read small tables or a few volumes
localrules:
    makeparams,
    defocus,
    sel_micrograph,
    defsort,
    def_sort,
    defavg,
    filt,
    plotres,
    plotrefviews,
    plotrefres,
    plotmap,
    report,


def passing(pattern):
    """Files that are large and needed once: gone when nothing needs them, unless jobs.keep_intermediate is set."""
    return pattern if CONFIG.jobs.keep_intermediate else temp(pattern)


def kept_for_reruns(pattern):
    """Files that only a later change needs: gone when nothing needs them with jobs.lean."""
    return temp(pattern) if CONFIG.jobs.lean else pattern


def code(script):
    """Hash of the package's code behind a script: a change there reruns the rule."""
    return source_hash(Path(workflow.basedir) / "scripts" / f"{script}.py")


def section(name):
    """A section of the configuration as a plain dict, for params."""
    return getattr(CONFIG, name).model_dump()


def edit(name):
    """The user's edit as a list: its path where it exists, otherwise nothing."""
    path = Path("edits") / f"{name}.star"
    return [str(path)] if path.exists() else []


def edit_content(name):
    """What the user's edit says, as a number; empty without one: a param, since a copied file may carry an old time."""
    return "".join(f"{stable_hash(Path(path).read_text(errors='replace')):08x}" for path in edit(name))


@checked
def groups():
    """Defocus groups as the CTF results and the user's edits make them; waits for the CTF results."""
    table = checkpoints.merge_ctf.get().output.micrographs
    return plan.read_groups(
        str(table), CONFIG, *(next(iter(edit(name)), None) for name in ("sel_micrograph", "def_sort", "defocus"))
    )


@checked
def group(wildcards):
    """The group of a job."""
    found = {g.label: g for g in groups()}
    if wildcards.group not in found:
        raise InputError(f"defocus group {wildcards.group} does not exist; there are {', '.join(found)}")
    return found[wildcards.group]


@checked
def caps():
    """Most particles per view of each group, by the group's label; None: no cap."""
    found = groups()
    numbers, path = [g.number for g in found], next(iter(edit("best_per_view")), None)
    by_number = plan.caps_by_group(path, numbers, CONFIG.thresholds.best_per_view)
    return {g.label: by_number[g.number] for g in found}


def kept_of_group(wildcards):
    """A group's particles after its threshold, and after the cap per view where it has one."""
    name = "bestim" if caps().get(wildcards.group) else "dftotals"
    return f"results/averages/group_{wildcards.group}/{name}.star"


def kept_of_groups(wildcards):
    """The same of all groups."""
    return [f"results/averages/group_{label}/{'bestim' if cap else 'dftotals'}.star" for label, cap in caps().items()]


def by_group(pattern):
    """Input function: `pattern` for each group."""
    return lambda wildcards: expand(pattern, group=[g.label for g in groups()])


def chunks():
    """Refinement chunks of a half: 0001, 0002, … Their number comes from the picks, so that thresholds never change it."""
    table = checkpoints.merge_coordinates.get().output.counts
    names = tuple(name for g in groups() for name in g.micrographs)
    return [f"{i:04d}" for i in range(1, checked(plan.read_chunk_count)(str(table), names, CONFIG) + 1)]


def by_chunk(pattern):
    """Input function: `pattern` for each half and chunk, other wildcards as in the job."""
    return lambda wildcards: expand(pattern, half=[1, 2], chunk=chunks(), **dict(wildcards.items()))


def work(wildcards):
    """Size of the project's work; for a job of a group with that group's particles; for a refinement job with the resolution that
    its iteration grids to, once that is known."""
    estimate = resources.estimate_work(CONFIG, PROJECT.batches)
    if "group" in wildcards.keys():
        estimate = estimate.of_group(group(wildcards).micrographs)
    shell = resources.gridded_shell(int(wildcards.iter), CONFIG.box) if "iter" in wildcards.keys() else None
    return estimate if shell is None else estimate.at_band(shell)


def memory(rule):
    """Memory that a rule's jobs ask for, MB; more with every attempt."""
    return lambda wildcards, attempt: resources.request_mb(rule, work(wildcards), attempt)


def minutes(rule):
    """Time limit that a rule's jobs ask for, minutes; more with every attempt."""
    return lambda wildcards, attempt, threads: resources.request_minutes(rule, work(wildcards), threads, attempt)
