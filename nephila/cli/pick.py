"""`nephila pick`: look at what picking finds on one micrograph."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Draw what picking finds on a micrograph, in seconds.")
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--preview", "micrograph", metavar="MIC", required=True, help="Micrograph: its path, or its file name.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Picture to write, PNG. [default: FOLDER/previews/MIC.png]",
)
def pick(folder: Path, micrograph: str, output: Path | None) -> None:
    """Pick one micrograph of the project in FOLDER (the current folder, where none is named) and draw the picks.

    Settings are those of config.yaml, as they stand now: change them, look again, then run. The CTF is the run's where it has
    one, else fitted. Nothing else of the project is written or read by a run.
    """
    import time
    from contextlib import chdir

    from nephila.config import load_config
    from nephila.picking.preview import draw_preview, preview_picks, summarise_preview

    start = time.perf_counter()
    config = load_config(folder / "config.yaml")
    target = output.absolute() if output is not None else None
    with chdir(folder):
        preview, image = preview_picks(config, micrograph)
        path = target or Path("previews", f"{Path(preview.name).stem}.png").absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_preview(preview, image, config, path)
    click.echo("\n".join(summarise_preview(preview)))
    click.echo(f"  picture {path}, {time.perf_counter() - start:.1f} s")
