"""The command line: projects made and never overwritten, what is passed on to Snakemake, one-line errors."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import nephila
from nephila.cli import main
from nephila.config import Config, load_config
from nephila.edits import NAMES
from nephila.errors import InputError
from nephila.io.mrc import write_stack, write_volume
from nephila.io.spider import write_document, write_spider
from nephila.io.tables import write_blocks

run_module = sys.modules["nephila.cli.run"]  # the name nephila.cli.run is the command itself


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder, seen from outside; and the command lines that would have been run."""
    monkeypatch.chdir(tmp_path)
    assert call("init", "mine").exit_code == 0
    return tmp_path / "mine"


@pytest.fixture
def calls(monkeypatch):
    """Command lines instead of their execution."""
    made = []
    monkeypatch.setattr(run_module, "_call", lambda command: made.append(command) or 0)
    return made


def test_version_and_help():
    assert call("--version").output == f"nephila, version {nephila.__version__}\n"
    for command in ((), ("init",), ("run",), ("simulate",), ("info",)):
        result = call(*command, "--help")
        assert result.exit_code == 0 and "Usage:" in result.output


def test_the_command_starts_without_the_heavy_libraries():
    heavy = {"numpy", "pandas", "numba", "scipy", "matplotlib", "pydantic", "snakemake"}
    code = f"import sys, nephila.cli; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_init_makes_a_project(project):
    assert load_config(project / "config.yaml") == Config()
    assert sorted(p.relative_to(project).as_posix() for p in project.rglob("*")) == [
        "config.yaml",
        "edits",
        "edits/README.md",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_of_the_edits_shows_tables_that_can_be_read(project, name):
    from nephila.io.tables import read_table

    text = (project / "edits" / "README.md").read_text()
    section = text[text.index(f"## {name}.star") :]
    table = "\n".join(line.strip() for line in section.split("\n## ")[0].splitlines() if line.startswith("    "))
    (project / f"{name}.star").write_text(table + "\n")
    assert len(read_table(project / f"{name}.star", kind={"defocus": "hand_defocus"}.get(name, name))) == 2


@pytest.mark.parametrize("existing", ["config.yaml", "edits/README.md"])
def test_init_overwrites_nothing(tmp_path, existing):
    path = tmp_path / existing
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    result = call("init", tmp_path)
    assert result.exit_code == 2 and existing in result.stderr
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [path.name] and path.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("mine",), []),
        (("mine", "ctf", "picks"), ["ctf", "picks"]),
        (("-n", "mine"), ["--dry-run"]),
        (("mine", "-n", "--cores", "3", "alignment"), ["--dry-run", "--cores", "3", "alignment"]),
        (("mine", "--forcerun", "defsort", "--keep-going"), ["--forcerun", "defsort", "--keep-going"]),
        (("mine", "-p", "--rerun-triggers", "mtime"), ["-p", "--rerun-triggers", "mtime"]),
    ],
)
def test_run_passes_on_what_it_does_not_know(project, calls, arguments, options):
    result = call("run", *arguments)
    assert result.exit_code == 0, result.output
    command = calls[0]
    assert command[:4] == [sys.executable, "-m", "snakemake", "--snakefile"]
    assert command[4].endswith("Snakefile") and command[5:7] == ["--directory", "mine"]
    assert command[7:] == options


def test_run_in_the_project_itself(project, calls, monkeypatch):
    monkeypatch.chdir(project)
    for arguments in ((), ("ctf",), ("--dry-run",), ("results/ctf/micrographs.star",)):
        assert call("run", *arguments).exit_code == 0
    assert all(command[6] == "." for command in calls)
    assert [command[7:] for command in calls] == [[], ["ctf"], ["--dry-run"], ["results/ctf/micrographs.star"]]


def test_a_folder_of_a_stages_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("init", "particles")
    assert run_module.split_folder(("particles", "ctf"))[1] == ["ctf"]
    call("init", ".")
    assert run_module.split_folder(("particles", "ctf"))[1] == ["particles", "ctf"]


def test_profiles(project, calls, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "config.yaml").write_text("cores: 1\n")
    assert call("run", "mine", "--profile", tmp_path / "site").exit_code == 0
    assert calls[0][7:9] == ["--workflow-profile", str(tmp_path / "site")]
    result = call("run", "mine", "--profile", "nosuch")
    assert result.exit_code == 2 and "--profile nosuch: no such profile" in result.stderr
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("text", "arguments", "named"),
    [
        ("ctf: {tiel: 3}\n", ("mine",), "ctf.tiel: unknown key; did you mean tile?"),
        ("a: [\n", ("mine",), "not readable YAML"),
        (None, ("mine",), "nephila init"),
        ("", ("nowhere",), "nowhere: no such folder"),
    ],
)
def test_run_checks_first_and_says_so_in_one_line(project, calls, text, arguments, named):
    (project / "config.yaml").unlink()
    if text is not None:
        (project / "config.yaml").write_text(text)
    result = call("run", *arguments)
    assert result.exit_code == 2 and not calls
    assert result.stderr.startswith("nephila: ") and named in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "printed"), [((), 0, True), (("ctf",), 0, False), (("-n",), 0, False), ((), 1, False)]
)
def test_the_summary_ends_a_whole_run(project, monkeypatch, arguments, status, printed):
    monkeypatch.setattr(run_module, "_call", lambda command: status)
    monkeypatch.setitem(
        sys.modules, "nephila.summary", types.SimpleNamespace(format_summary=lambda path: f"summary of {path.name}")
    )
    (project / "results").mkdir()
    (project / "results" / "summary.json").write_text("{}")
    result = call("run", "mine", *arguments)
    assert result.exit_code == status
    assert ("summary of summary.json" in result.output) == printed


@pytest.mark.parametrize(
    ("code", "status"), [("import sys; sys.exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_exit_status_is_snakemakes(code, status):
    assert run_module._call([sys.executable, "-c", code]) == status


def test_without_the_workflow_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(nephila, "__file__", str(tmp_path / "site-packages" / "nephila" / "__init__.py"))
    with pytest.raises(InputError, match="pip install --editable"):
        run_module.find_snakefile()


def simulated(monkeypatch, *arguments):
    """What `nephila simulate out ARGUMENTS` asks for."""
    from nephila.simulate import project as simulation

    asked = []
    monkeypatch.setattr(simulation, "simulate_project", lambda out, **given: asked.append((out, given)))
    result = call("simulate", "out", *arguments)
    assert result.exit_code == 0, result.output
    return asked[0][1]


def test_simulate_without_options_takes_the_defaults(monkeypatch):
    from nephila.simulate.micrographs import MicrographSettings
    from nephila.simulate.project import OPTICS, ObjectSettings

    given = simulated(monkeypatch, "--seed", 5, "--micrographs", 3)
    assert (given["seed"], given["micrographs"]) == (5, 3)
    assert (given["settings"], given["subject"], given["optics"]) == (MicrographSettings(), ObjectSettings(), OPTICS)


def test_the_help_of_simulate_states_the_defaults():
    from nephila.simulate.micrographs import MicrographSettings
    from nephila.simulate.project import OPTICS

    text = " ".join(call("simulate", "--help").output.split())
    settings = MicrographSettings()
    for option, value in {
        "size": settings.shape[0],
        "pixel-size": settings.pixel_size,
        "particles": settings.particles,
        "defocus-range": "{:g} {:g}".format(*settings.defocus_range),
        "max-astigmatism": settings.max_astigmatism,
        "noise": settings.noise,
        "structural-noise": settings.structural_noise,
        "dirt": settings.dirt,
        "voltage": OPTICS.voltage_kv,
        "cs": OPTICS.cs_mm,
        "amplitude-contrast": OPTICS.amplitude_contrast,
    }.items():
        shown = value if isinstance(value, str) else f"{value:g}"
        part = text[text.index(f"--{option} ") :]
        assert part[part.index("[default: ") :].startswith(f"[default: {shown}]"), option


def test_options_of_simulate(monkeypatch, tmp_path):
    (tmp_path / "m.mrc").write_bytes(b"")
    options = [
        "--size",
        "512",
        "--pixel-size",
        "2",
        "--defocus-range",
        "9000",
        "12000",
        "--symmetry",
        "D2",
        "--cs",
        "2",
        "--noise",
        "3",
    ]
    given = simulated(monkeypatch, "--map", tmp_path / "m.mrc", *options)
    settings, subject = given["settings"], given["subject"]
    assert (settings.shape, settings.pixel_size, settings.defocus_range) == ((512, 512), 2, (9000, 12000))
    assert (settings.noise, given["optics"].cs_mm, given["optics"].voltage_kv) == (3, 2, 300)
    assert (subject.map, subject.symmetry, subject.structure) == (tmp_path / "m.mrc", "D2", None)


def test_impossible_simulations_are_one_line(tmp_path):
    for options in (("--defocus-range", 3, 2), ("--voltage", 300000)):
        result = call("simulate", tmp_path / "out", *options)
        assert result.exit_code == 2 and result.stderr.startswith("nephila: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_info_of_mrc(tmp_path):
    write_volume(tmp_path / "v.mrc", np.zeros((4, 5, 6)), 1.5)
    write_stack(tmp_path / "s.mrcs", np.ones((3, 8, 9)), 2.0)
    result = call("info", tmp_path / "v.mrc", tmp_path / "s.mrcs")
    assert result.exit_code == 0
    for text in ("MRC volume, mode 2", "6 x 5 x 4 px (x, y, z)", "1.5 A", "3 images of 9 x 8 px", "1 to 1, mean 1"):
        assert text in result.output


def test_info_of_tables(tmp_path):
    optics = pd.DataFrame({"rlnOpticsGroup": [1]})
    write_blocks(tmp_path / "t.star", {"optics": optics, "particles": pd.DataFrame({"rlnCoordinateX": [1, 2]})})
    output = call("info", tmp_path / "t.star").output
    assert (
        "data_optics: 1 row, 1 columns" in output and "data_particles: 2 rows" in output and "rlnCoordinateX" in output
    )


def test_info_of_spider_and_tiff(tmp_path):
    import tifffile

    write_spider(tmp_path / "v.spi", np.zeros((4, 4, 4), np.float32))
    write_document(tmp_path / "d.spi", {"a": [1.0, 2.0]})
    tifffile.imwrite(tmp_path / "m.tif", np.arange(12, dtype=np.uint8).reshape(3, 4))
    output = call("info", tmp_path / "v.spi", tmp_path / "d.spi", tmp_path / "m.tif").output
    for text in ("SPIDER volume", "not stated", "SPIDER document, 2 lines, 1 columns", "4 x 3 px (x, y)", "0 to 11"):
        assert text in output


@pytest.mark.parametrize("content", [None, b"", b"some text\n", bytes(range(256)) * 8])
def test_info_of_anything_else_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "x.bin").write_bytes(content)
    result = call("info", tmp_path / "x.bin")
    assert result.exit_code == 2 and result.stderr.startswith("nephila: ") and result.stderr.count("\n") == 1
    assert "x.bin" in result.stderr
