"""The command `nephila`: small front ends. Each command's module imports what it needs when it runs, so that help is quick."""

from __future__ import annotations

from typing import Any

import click

from nephila import __version__
from nephila.cli.archive import archive
from nephila.cli.classes import classes
from nephila.cli.clean import clean
from nephila.cli.compare import compare
from nephila.cli.convert import convert
from nephila.cli.diff import diff
from nephila.cli.import_project import import_command
from nephila.cli.info import info
from nephila.cli.init import init
from nephila.cli.join import join
from nephila.cli.merge_advice import merge_advice
from nephila.cli.pick import pick
from nephila.cli.pixel_error import pixel_error
from nephila.cli.pixelsize import pixelsize
from nephila.cli.plan_command import plan
from nephila.cli.postprocess import postprocess
from nephila.cli.recover import recover
from nephila.cli.refine_optics import refine_optics
from nephila.cli.report import report
from nephila.cli.review import review
from nephila.cli.run import run
from nephila.cli.simulate import simulate
from nephila.cli.status import status
from nephila.cli.symmetry import expand, symmetry
from nephila.cli.why import why
from nephila.errors import NephilaError

USER_ERROR = 2
"""Exit code for input that cannot be used, as click has it for a wrong command line."""


class Commands(click.Group):
    """A group that ends at a user's error with one line on stderr."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; any NephilaError becomes `nephila: …` and exit code 2."""
        try:
            return super().invoke(ctx)
        except NephilaError as error:
            click.echo(f"nephila: {' '.join(str(error).split())}", err=True)
            ctx.exit(USER_ERROR)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nephila")
def main() -> None:
    """Single-particle reconstruction with defocus groups, from micrographs to a refined map.

    A project is a folder with a config.yaml: 'nephila init FOLDER' makes one, 'nephila run FOLDER' runs it.
    """


for command in (
    diff,
    init,
    run,
    review,
    simulate,
    info,
    why,
    recover,
    pick,
    plan,
    postprocess,
    merge_advice,
    classes,
    clean,
    archive,
    status,
    report,
    compare,
    convert,
    import_command,
    join,
    pixel_error,
    pixelsize,
    refine_optics,
    symmetry,
    expand,
):
    main.add_command(command)
