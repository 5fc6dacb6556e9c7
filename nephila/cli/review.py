"""`nephila review`: the page in which one looks at a project and decides."""

from __future__ import annotations

from pathlib import Path

import click

from nephila.errors import InputError


@click.command(short_help="Look at a project in the browser, and decide.")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port; without it a free one.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen at. Others than this machine's own need --allow-network.",
)
@click.option("--allow-network", is_flag=True, help="Let other machines connect (unencrypted: for trusted networks).")
@click.option("--no-browser", is_flag=True, help="Only print the address; do not open it.")
def review(folder: Path, port: int, host: str, allow_network: bool, no_browser: bool) -> None:
    """Serve the project in FOLDER (the current folder, where none is named) to this machine's browser until Ctrl-C.

    Micrographs, groups, particles and thresholds are chosen there; every decision is written to edits/ at once, with a history
    and undo, and the page says what the next run will do. The address holds a token: who has it can decide.
    """
    from nephila.review.server import is_loopback, serve

    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no project (there is no config.yaml); `nephila init {folder}` makes one")
    if not is_loopback(host):
        if not allow_network:
            raise InputError(
                f"--host {host} lets other machines connect; add --allow-network if that is meant, or tunnel: "
                "ssh -L PORT:127.0.0.1:PORT"
            )
        click.echo(
            f"warning: listening at {host}: the page and its token cross the network unencrypted; whoever sees the address can "
            "read the project and change edits/",
            err=True,
        )
    serve(folder, host, port, open_browser=not no_browser, say=click.echo)
