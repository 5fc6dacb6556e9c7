"""`nephila init`: an empty project folder."""

from __future__ import annotations

from pathlib import Path

import click

from nephila.errors import InputError

EDITS_README = """\
# Your decisions

The workflow proposes, you decide. Each proposal is a table under `results/`, named `….proposed.star`. To change one, copy
it here under the name below, change it, and run again: only what depends on it is redone. The workflow reads this folder
and never writes here. Take a file away and the proposal counts again.

Columns may stand in any order and further columns do no harm. Micrographs are named as in `rlnMicrographName` of the
proposal. A name that the project does not know, or one that stands twice, stops the run with one line.

## defocus.star: defoci by hand

What was fitted: `results/ctf/micrographs.star`. Only micrographs that were fitted by hand, with defocus U and V (A, underfocus
positive) and the angle of U (degrees). Such a micrograph is proposed for keeping. Others keep their fit; picks are not searched
again. Not for particles that were given with defoci of their own.

    data_defocus

    loop_
    _rlnMicrographName #1
    _rlnDefocusU #2
    _rlnDefocusV #3
    _rlnDefocusAngle #4
    micrographs/mic_002.mrc 15320 15010 34.5
    micrographs/mic_007.mrc 9840 9840 0

## sel_micrograph.star: which micrographs to use

Proposal: `results/ctf/sel_micrograph.proposed.star`. `nphKeep`: 1 keeps, 0 drops. Micrographs that are not named follow the
proposal.

    data_sel_micrograph

    loop_
    _rlnMicrographName #1
    _nphKeep #2
    micrographs/mic_001.mrc 1
    micrographs/mic_002.mrc 0

## def_sort.star: which micrographs form a defocus group

Proposal: `results/ctf/def_sort.proposed.star`. `nphDefocusGroup`: a number from 1 on; numbers need not be consecutive. Every
micrograph in use needs a row.

    data_def_sort

    loop_
    _rlnMicrographName #1
    _nphDefocusGroup #2
    micrographs/mic_001.mrc 1
    micrographs/mic_003.mrc 2

## good.star: which particles to use

Proposal: `results/particles/good.proposed.star`. `nphParticleNumber` counts from 1 within its micrograph; `nphKeep`: 1 keeps,
0 drops. Particles that are not named follow the proposal. One named with 1 also stays where it is doubted after the alignment
(`results/averages/group_…/doubts.star`).

    data_good

    loop_
    _rlnMicrographName #1
    _nphParticleNumber #2
    _nphKeep #3
    micrographs/mic_001.mrc 1 1
    micrographs/mic_001.mrc 2 0

## thresh.star: the correlation that a particle must reach, by defocus group

Proposal: `results/averages/thresh.proposed.star`. Particles whose correlation is below `nphThreshold` are left out of the
reconstruction and the refinement. Groups that are not named follow the proposal.

    data_thresh

    loop_
    _nphDefocusGroup #1
    _nphThreshold #2
    1 0.231
    2 0.218

## best_per_view.star: the most particles per view, by defocus group

In place of `thresholds.best_per_view`, which counts for groups that are not named. `nphAtMost`: the best so many of each view
go on; 0 is no cap.

    data_best_per_view

    loop_
    _nphDefocusGroup #1
    _nphAtMost #2
    1 40
    2 0
"""


@click.command(short_help="Make an empty project folder.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Make a project in FOLDER: a config.yaml with a comment on every key, and the folder edits/ for your decisions.

    Nothing that exists is overwritten.
    """
    from nephila.config.render import default_yaml
    from nephila.io.atomic import write_text

    files = {folder / "config.yaml": default_yaml(), folder / "edits" / "README.md": EDITS_README}
    for path in files:
        if path.exists():
            raise InputError(f"{path} exists already; choose another folder, or move it away first")
    for path, text in files.items():
        write_text(path, text)
    click.echo(f"Project made in {folder}. Next: put micrographs and a reference there, set config.yaml, then")
    click.echo(f"  nephila run {folder} -n    (shows the plan)")
    click.echo(f"  nephila run {folder}")
