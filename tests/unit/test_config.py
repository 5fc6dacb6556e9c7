"""The configuration: what is generated is up to date, typing errors are named, keys are checked against each other."""

from __future__ import annotations

import json

import pytest
import yaml

from nephila.config import Config, load_config, parse_config
from nephila.config.render import GENERATED, default_yaml
from nephila.errors import InputError


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_generated_files_are_up_to_date(repository, name):
    assert (repository / name).read_text(encoding="utf-8") == GENERATED[name](), "run: python -m nephila.config.render"


def test_the_default_file_holds_the_defaults():
    assert parse_config(yaml.safe_load(default_yaml())) == Config()


def test_an_empty_file_means_the_defaults(tmp_path):
    (tmp_path / "config.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "config.yaml") == Config()


def test_values_are_written_and_read_back():
    values = {
        "reference": {"volume": "70S: first # try.mrc"},
        "input": {"pixel_size": 2.8017, "coordinates": "mine/picks.star"},
        "particle": {"box": 128, "symmetry": "D2", "diameter": 250.0},
        "refinement": {"angular_step_deg": [15.0, 2.0], "enhance": [False], "mask": {"edge": 8.0}},
    }
    config = parse_config(yaml.safe_load(default_yaml(values)))
    assert config == parse_config(values)
    assert config.reference.volume == "70S: first # try.mrc" and config.refinement.angular_step_deg == [15.0, 2.0]


def test_every_key_has_a_comment():
    lines = default_yaml().splitlines()
    for i, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith("#"):
            assert "#" in line or lines[i - 1].lstrip().startswith("#"), line


def test_the_schema_refuses_unknown_keys_everywhere():
    schema = json.loads(GENERATED["docs/config.schema.json"]())
    for name, part in [("", schema), *schema["$defs"].items()]:
        if part.get("type") == "object":
            assert part["additionalProperties"] is False, name


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"particel": {}}, "particel: unknown key; did you mean particle?"),
        ({"ctf": {"tiel": 3}}, "ctf.tiel: unknown key; did you mean tile?"),
        ({"ctf": {"screening": {"max_astigmatsm": 3}}}, "ctf.screening.max_astigmatsm: unknown key; did you mean"),
        ({"particle": {"qqq": 1}}, "particle.qqq: unknown key; keys here: diameter, box, symmetry"),
        ({"input": {"raw": {"width": 10, "hight": 10}}}, "input.raw.hight: unknown key; did you mean height?"),
        ({"input": {"raw": {"width": 10}}}, "input.raw.height: field required"),
        ({"ctf": 5}, "ctf"),
        ({"input": {"pixel_size": "one"}}, "input.pixel_size"),
        ({"input": {"pixel_size": 0}}, "input.pixel_size: input should be greater than 0 (given: 0)"),
        ({"input": {"pixel_size": float("nan")}}, "input.pixel_size"),
        ({"input": {"contrast": "black"}}, "input.contrast"),
        ({"optics": {"voltage_kv": 300000}}, "optics.voltage_kv"),
        ({"optics": {"cs_mm": 2.7e7}}, "optics.cs_mm"),
        ({"defocus_groups": {"width": -1}}, "defocus_groups.width"),
        ({"particle": {"symmetry": "C0"}}, "C0"),
        ({"particle": {"symmetry": "cube"}}, "cube"),
        ({"particle": {"box": 99, "diameter": 60}}, "particle.box: 99 is odd; use 100"),
        (
            {"particle": {"box": 64, "diameter": 200}},
            "particle.box: 64 px are 64 A, less than the particle's diameter of 200 A",
        ),
        ({"input": {"pixel_size": 5.0, "decimate": 6}}, "reference.resolution: 40 A is finer than Nyquist (60 A"),
        ({"ctf": {"min_resolution": 4, "max_resolution": 8}}, "ctf.min_resolution: 4 A must be coarser than"),
        ({"ctf": {"min_defocus": 3e4, "max_defocus": 2e4}}, "ctf.min_defocus: 30000 A must be below"),
        ({"refinement": {"enhance": [False, True]}}, "refinement.enhance: needs refinement.scattering"),
        ({"refinement": {"iterations": 0}}, "refinement.iterations"),
        ({"thresholds": {"share_rejected": 1}}, "thresholds.share_rejected"),
        ([1, 2], "sections with keys are expected, not list"),
    ],
)
def test_what_is_wrong_is_named(content, named):
    with pytest.raises(InputError) as error:
        parse_config(content, source="my.yaml")
    message = str(error.value)
    assert message.startswith("my.yaml: ") and named in message and "\n" not in message


def test_all_problems_are_told_at_once():
    with pytest.raises(InputError) as error:
        parse_config({"ctf": {"tiel": 3}, "optics": {"voltage_kv": 0}})
    assert "ctf.tiel" in str(error.value) and "optics.voltage_kv" in str(error.value)


@pytest.mark.parametrize(
    ("text", "named"), [("a: [1\n", "not readable YAML"), ("- 1\n", "not list"), ("just text\n", "not str")]
)
def test_a_file_that_is_no_configuration(tmp_path, text, named):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=named) as error:
        load_config(tmp_path / "config.yaml")
    assert "config.yaml" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="nephila init"):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("diameter", "pixel_size", "box"), [(130, 1.5, 144), (200, 1.0, 300), (10, 1.0, 16), (250, 2.8017, 144)]
)
def test_box_from_the_diameter(diameter, pixel_size, box):
    config = parse_config({"input": {"pixel_size": pixel_size}, "particle": {"diameter": diameter}})
    assert config.box == box >= min(1.5 * diameter / pixel_size, box)


def test_decimation_changes_the_pixel_size():
    assert parse_config({"input": {"pixel_size": 1.2, "decimate": 3}}).pixel_size == pytest.approx(3.6)
