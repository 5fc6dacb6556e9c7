"""The report: complete in itself, the same bytes for the same results, and each finding exactly where it belongs."""

from __future__ import annotations

import html
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from nephila.cli import main
from nephila.config import Config
from nephila.fsc import fsc_table
from nephila.io.atomic import write_text
from nephila.io.tables import write_table
from nephila.report.checks import RESULT_TITLES, check_run, densest_view, least_coverage, mask_correlation, mask_gain
from nephila.report.collect import Run, collect
from nephila.report.comparison import code_differs, render_comparison, result_rows, setting_rows, text_table
from nephila.report.methods import methods_text
from nephila.report.page import POLICY, render_report
from nephila.symmetry import point_group_matrices

BOX, PIXEL = 64, 2.0
SHELLS = np.arange(BOX // 2 + 1)
RNG = np.random.default_rng(5)


def without_markup(page):
    """The words of a page."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<(style|title)>.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)))


def falling(half=16.0, floor=0.0):
    """A smooth FSC through 0.5 at shell `half`, down to `floor`."""
    return floor + (1 - floor) / (1 + np.exp((SHELLS - half) / 1.5))


def fsc(corrected, randomised=None):
    table = fsc_table(corrected, BOX, PIXEL)
    table["rlnFourierShellCorrelationUnmaskedMaps"] = corrected
    table["rlnFourierShellCorrelationMaskedMaps"] = corrected
    mask = np.where(SHELLS < 14, 1.0, 0.0) if randomised is None else randomised
    table["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"] = mask
    return table


def directions(number=3000):
    vectors = RNG.normal(size=(number, 3))
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    return vectors


def poses(vectors):
    return pd.DataFrame(
        {
            "rlnAngleRot": np.rad2deg(np.arctan2(vectors[:, 1], vectors[:, 0])),
            "rlnAngleTilt": np.rad2deg(np.arccos(vectors[:, 2])),
        }
    )


NAMES = [f"mic_{i}.mrc" for i in range(1, 11)]
EVEN = directions()


def selection(dropped=0, reason="rings only to 14.0 A"):
    keep = [0] * dropped + [1] * (10 - dropped)
    return pd.DataFrame(
        {"rlnMicrographName": NAMES, "nphKeep": keep, "nphReason": [reason if not k else "none" for k in keep]}
    )


def iterations(converged=1):
    return pd.DataFrame(
        {
            "nphIteration": [0, 1, 2],
            "nphSearch": ["start", "exhaustive", "local"],
            "nphConverged": [0, 0, converged],
            "nphResolution": [12.0, 9.0, 8.0],
            "nphResolutionHalf": [15.0, 12.0, 11.0],
            "nphResolutionUnmasked": [14.0, 11.0, 10.0],
            "nphAngularStep": [0, 10, 3],
            "nphMovedAngle": [0, 3.0, 0.1],
            "nphMovedAngst": [0, 1.0, 0.1],
            "nphShareMoved": [1, 0.2, 0.0],
            "nphCorrelationGained": [0, 0.0521, 0.0007],
            "nphCorrelationLost": [0, 0.0113, 0.0004],
        }
    )


def first_maps(worst=12.0):
    return pd.DataFrame(
        {
            "nphDefocusGroup": [0, 1, 2, 3, 4],
            "nphResolutionHalf": [10.0, 12, 12, 12, worst],
            "nphResolution": [8.0, 10, 10, 10, 10],
        }
    )


SUMMARY = {
    "project": "test", "micrographs": {"given": 10, "kept": 10}, "defocus_groups": 4, "pixel_size": PIXEL, "box": BOX,
    "particles": {"picked": 500, "selected": 480, "aligned": 480, "refined": 400},
    "resolution": {"fsc_0143": 7.1, "fsc_05": 8.0, "unmasked_0143": 9.0},
    "cost": {"total": {"jobs": 3, "cpu_seconds": 9.0, "startup_cpu_seconds": 1.0, "wall_seconds": 8.0, "peak_memory_mb": 512.0}},
    "versions": {"nephila": "0.1.0", "python": "3.11", "numpy": "2", "scipy": "1", "numba": "0.6", "snakemake": "9"},
}  # fmt: skip


def settings(**sections):
    plain = {"input": {"pixel_size": PIXEL}, "particle": {"diameter": 90.0, "box": BOX}}
    return Config.model_validate(plain | sections)


@pytest.fixture
def sound(tmp_path):
    """A run with nothing to find fault with."""
    tables = {
        "selection": selection(),
        "proposal": selection(),
        "groups": pd.DataFrame(
            {
                "nphDefocusGroup": [1, 2, 3, 4], "nphGroupDefocus": [1e4, 1.5e4, 2e4, 2.5e4], "nphMicrographs": [3, 3, 2, 2],
                "nphDefocusSpread": 500.0, "nphWorstDeviation": 300.0, "nphPhaseErrorLimit": [3.4, 3.4, 3.4, 0.0],
            }
        ),
        "phases": pd.DataFrame({"rlnMicrographName": NAMES, "nphDefocusGroup": 1, "nphInPhase": [0.0] + [0.8] * 9}),
        "picks": pd.DataFrame({"rlnMicrographName": NAMES, "nphCandidates": 90, "nphPicked": 50}),
        "kept": pd.DataFrame({"nphDefocusGroup": [1, 2, 3, 4], "nphParticles": 100}),
        "first_resolution": first_maps(),
        "iterations": iterations(),
        "fsc": fsc(falling()),
        "particles": poses(EVEN),
    }  # fmt: skip
    return Run(tmp_path, settings(), SUMMARY, tables)


def changed(run, **tables):
    return replace(run, tables=run.tables | tables)


def resolved(run, value):
    return replace(run, summary=run.summary | {"resolution": run.summary["resolution"] | {"fsc_0143": value}})


def crowded():
    one = np.array([0.3, 0.4, np.sqrt(0.75)]) + 0.05 * RNG.normal(size=(600, 3))
    return np.concatenate([EVEN[:1500], one / np.linalg.norm(one, axis=1)[:, None]])


def follows_noise():
    """The unmasked FSC ends at shell 16, the masked one hardly falls."""
    return fsc(falling()).assign(rlnFourierShellCorrelation=np.where(SHELLS < 28, 0.6, 0.0))


def by_hand():
    fits = pd.DataFrame(
        {"rlnMicrographName": NAMES, "rlnDefocusU": 10_100.0, "rlnDefocusV": 9_900.0, "nphKeep": 1, "nphReason": "none"}
    )
    used = fits.assign(
        rlnDefocusU=[10_600.0] + [10_100.0] * 9, rlnDefocusAngle=0.0, nphReason=["by hand"] + ["none"] * 9
    )
    return {"fits": fits, "micrographs": used}


def top_views():
    """Views near the pole alone: what lies along the axis is never seen from the side."""
    near = EVEN * np.array([0.2, 0.2, 1.0])
    return near / np.linalg.norm(near, axis=1)[:, None]


def without_reference(run, agreement, skewness=2.0):
    """A run from an initial model whose tries agree with the likeliest to these resolutions."""
    tries = pd.DataFrame(
        {"nphTry": [2, 1, 3], "nphResolution": 30.0, "nphAgreement": agreement, "nphMirrored": [0, 1, 0]}
    )
    tries["nphSkewness"] = skewness
    empty = settings(reference={"volume": None}, picking={"method": "pick"})
    return replace(changed(run, initial=tries), config=empty)


CASES = {
    "dropped": lambda r: changed(r, selection=selection(1)),
    "kept_by_edit": lambda r: changed(r, proposal=selection(2)),
    "phase": lambda r: changed(r, groups=r.tables["groups"].assign(nphPhaseErrorLimit=[3.4, 7.3, 3.4, 0.0])),
    "rings": lambda r: changed(r, phases=r.tables["phases"].assign(nphInPhase=[-0.2] + [0.8] * 9)),
    "few_picks": lambda r: changed(r, picks=r.tables["picks"].assign(nphPicked=[5] + [50] * 9)),
    "initial_tries": lambda r: without_reference(r, [30.0, 95.0, 0.0]),
    "initial_contrast": lambda r: without_reference(r, [30.0, 31.0, 0.0], -2.0),
    "initial_hand": lambda r: without_reference(r, [30.0, 31.0, 0.0]),
    "defective_group": lambda r: changed(r, first_resolution=first_maps(30.0)),
    "not_converged": lambda r: changed(r, iterations=iterations(0)),
    "shared_halves": lambda r: replace(r, config=settings(refinement={"halves": "shared"})),
    "joined": lambda r: replace(r, config=settings(refinement={"join_resolution": 8.0})),
    "unresolved": lambda r: resolved(r, None),
    "fsc_tail": lambda r: changed(r, fsc=fsc(falling(16, 0.13))),
    "nyquist": lambda r: resolved(r, 4.2),
    "tight_mask": lambda r: changed(r, fsc=fsc(falling(), np.where(SHELLS < 20, 0.9, 0.0))),
    "mask_gain": lambda r: changed(r, fsc=follows_noise()),
    "by_hand": lambda r: changed(r, **by_hand()),
    **{
        name: lambda r, name=name: changed(
            r,
            checks=pd.DataFrame(
                {
                    "nphName": [name, "other"],
                    "nphMeasured": [0.4, 0.1],
                    "nphLimit": [0.2, 0],
                    "nphReason": ["it is so", "none"],
                }
            ),
        )
        for name in RESULT_TITLES
    },
    "crowded_view": lambda r: changed(r, particles=poses(crowded())),
    "truth": lambda r: replace(r, summary=r.summary | {"truth": {"ratio_to_true_poses": 1.3}}),
}


def test_a_sound_run_has_no_findings(sound):
    assert check_run(sound) == []


@pytest.mark.parametrize("name", CASES)
def test_a_finding_appears_alone_with_value_limit_and_advice(sound, name):
    run = CASES[name](sound)
    found = check_run(run)
    assert [finding.check for finding in found] == [name]
    assert found[0].value and found[0].limit and found[0].advice.endswith(".")
    words = without_markup(render_report(run))
    assert found[0].title in words and found[0].value in words and found[0].advice in words


def test_missing_directions_are_found(sound):
    assert "coverage" in [finding.check for finding in check_run(changed(sound, particles=poses(top_views())))]


@pytest.mark.parametrize("name", [*CASES, "coverage"])
def test_every_finding_is_explained(sound, repository, name):
    run = changed(sound, particles=poses(top_views())) if name == "coverage" else CASES[name](sound)
    title = next(finding.title for finding in check_run(run) if finding.check == name)
    rows = (repository / "docs" / "judging.md").read_text(encoding="utf-8")
    assert f"| {re.sub('^[0-9]+ ', '', title).replace('micrographs ', 'micrograph ')} |" in rows


def test_many_dropped_micrographs_are_a_warning(sound):
    assert check_run(changed(sound, selection=selection(2)))[0].level == "note"
    assert check_run(changed(sound, selection=selection(3)))[0].level == "warning"


def test_each_particles_own_ctf_needs_no_phase_in_the_final_map(sound):
    run = CASES["phase"](sound)
    own = replace(run, config=settings(refinement={"ctf": "particle"}))
    assert check_run(own) == []  # the first map, at 8 A, is coarser than 7.3 A
    worse = changed(own, groups=own.tables["groups"].assign(nphPhaseErrorLimit=[3.4, 8.2, 3.4, 0.0]))
    assert [finding.check for finding in check_run(worse)] == ["phase"]


@pytest.mark.parametrize("symmetry", ["C1", "D2", "O"])
def test_even_views_are_not_crowded_in_any_point_group(symmetry):
    density, _ = densest_view(EVEN, point_group_matrices(symmetry))
    assert density < 2.5
    assert least_coverage(EVEN, point_group_matrices(symmetry))[0] > 0.7


def test_views_in_one_part_of_the_sphere_are_even_once_symmetry_is_counted():
    operators = point_group_matrices("O")
    corner = np.array([1.0, 0.6, 0.3]) / np.linalg.norm([1.0, 0.6, 0.3])
    copies = np.einsum("sij,nj->nsi", operators, EVEN)
    nearest = np.argmax(copies @ corner, axis=1)
    unique = copies[np.arange(len(EVEN)), nearest]
    assert least_coverage(unique, operators)[0] > 0.7 > least_coverage(unique, np.eye(3)[None])[0]


def test_few_particles_are_uneven_by_chance_alone(sound):
    assert check_run(changed(sound, particles=poses(EVEN[:60]))) == []


def test_mask_correlation_looks_beyond_the_randomisation():
    assert mask_correlation(fsc(falling())) < 0.01
    assert mask_correlation(fsc(falling()).drop(columns="rlnFourierShellCorrelationUnmaskedMaps")) == 0
    assert mask_correlation(fsc(falling(), np.full(len(SHELLS), 0.3))) == pytest.approx(0.3)


def test_the_mask_gains_what_less_solvent_explains():
    """FSC = r / (1 + r) at a ratio r of signal to noise; a mask that keeps a fifth of the noise makes it 5 r."""
    ratio = np.exp(3 - SHELLS / 4)
    table = fsc(ratio / (1 + ratio)).assign(rlnFourierShellCorrelation=5 * ratio / (1 + 5 * ratio))
    assert mask_gain(table, 0.2) == 0
    assert mask_gain(table, 1.0) > 0.2
    assert mask_gain(follows_noise(), 0.2) > 0.2
    assert mask_gain(table.drop(columns="rlnFourierShellCorrelationUnmaskedMaps"), 0.2) == 0


def test_micrographs_by_hand_and_caps_are_in_the_methods(sound):
    run = changed(sound, **by_hand(), kept=sound.tables["kept"].assign(nphAtMost=[0, 5, 9, 0]))
    words = " ".join(methods_text(run)[0])
    assert "1 micrograph was fitted by hand." in words
    assert "At most 5 to 9 particles were kept for each view and group in 2 of 4 groups." in words


def test_chance_in_small_shells_is_no_fault_of_the_mask():
    """A coarse map of few particles: shells 5 to 8 have few values inside the mask."""
    noisy = fsc(falling(4), np.where(SHELLS < 4, 1.0, np.where((SHELLS > 5) & (SHELLS < 9), 0.2, 0.0)))
    assert mask_correlation(noisy, 0.02) == 0 and mask_correlation(noisy, 1.0) == pytest.approx(0.2)


@pytest.fixture
def project(tmp_path):
    """A project with figures, tables and records, as a run leaves them."""
    folder = tmp_path / "project"
    pictures = [f"results/ctf/figures/0001/mic_{i}.png" for i in range(1, 11)]
    for name in (
        "averages/figures/averages", "averages/figures/cchistogram", "refinement/figures/map_views", "refinement/figures/fsc",
        "refinement/figures/resolution", "particles/figures/windows", "particles/figures/mic_1", "ctf/group_figures/groups",
    ):  # fmt: skip
        pictures.append(f"results/{name}.png")
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 255, (420, 1000), dtype=np.uint8)).save(folder / name)
    micrographs = pd.DataFrame(
        {"rlnMicrographName": NAMES, "nphBatch": 1, "rlnDefocusU": np.linspace(1e4, 2e4, 10), "rlnDefocusV": 1e4,
         "rlnCtfMaxResolution": np.linspace(4, 9, 10), "rlnCtfFigureOfMerit": 0.9, "nphKeep": 1, "nphReason": "none"}
    )  # fmt: skip
    results = folder / "results"
    write_table(results / "ctf" / "micrographs.star", micrographs, block="micrographs")
    write_table(results / "ctf" / "sel_micrograph.star", selection(1), block="sel_micrograph")
    write_table(results / "refinement" / "fsc.star", fsc(falling()), block="fsc")
    write_table(results / "refinement" / "iterations.star", iterations(), block="iterations")
    write_text(results / "summary.json", json.dumps(SUMMARY))
    record = {"rule": "pick", "started": 1.8e9, "wall_seconds": 60.0, "cpu_seconds": 50.0, "code": "abc"}
    write_text(folder / "logs" / "pick" / "0001.json", json.dumps(record))
    return folder


def test_the_page_asks_for_nothing_from_elsewhere(project):
    page = render_report(collect(project, settings()))
    assert f'content="{POLICY}"' in page.replace("&#39;", "'")
    assert "default-src 'none'" in POLICY and "http" not in POLICY
    sources = re.findall(r"\b(?:src|srcset|poster|data|action|background)\s*=\s*[\"']([^\"']*)", page)
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"<(?:script|link|iframe|object|embed|base|form|video|audio)\b|@import|url\(", page)
    targets = re.findall(r"href=\"([^\"]*)\"", page)
    assert all(target.startswith(("#", "https://doi.org/10.")) for target in targets)
    ids = set(re.findall(r" id=\"([^\"]*)\"", page))
    assert {target[1:] for target in targets if target.startswith("#")} <= ids
    assert len(page) < 15e6


def test_the_first_screen_comes_first_and_every_picture_has_words(project):
    page = render_report(collect(project, settings()))
    words = without_markup(page)
    for text in ("7.10", "FSC 0.143", "400", "of 500 picked", "1 min 0 s", "50 s of CPU"):
        assert words.index(text) < words.index("Micrographs and CTF Power spectra"), text
    assert page.count("<img") == len(re.findall(r"<img [^>]*alt=\"[^\"]+\"", page))
    assert "left out" in words and "rings only to 14.0 A" in words


def test_equal_results_give_equal_bytes_and_the_reports_own_record_does_not_count(project):
    first = render_report(collect(project, settings()))
    record = {"rule": "report", "started": 2e9, "wall_seconds": 5.0, "cpu_seconds": 3.0}
    write_text(project / "logs" / "report.json", json.dumps(record))
    assert render_report(collect(project, settings())) == first


def test_the_page_stays_within_its_size(project, monkeypatch):
    monkeypatch.setattr("nephila.report.page.BUDGET", 100_000)
    page = render_report(collect(project, settings()))
    assert len(page) < 200_000
    assert "7.10" in without_markup(page)


def test_names_are_text_and_never_markup(sound):
    bad = selection(1).assign(nphReason="<script>alert(1)</script>")
    page = render_report(changed(sound, selection=bad))
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_a_report_of_a_run_that_is_going_on(project):
    (project / "results" / "summary.json").unlink()
    words = without_markup(render_report(collect(project, settings())))
    assert "not finished" in words and "Micrographs and CTF" in words


def test_two_hundred_micrographs_are_folded_with_the_worst_on_top(project):
    names = [f"mic_{i}.mrc" for i in range(1, 201)]
    table = pd.DataFrame(
        {"rlnMicrographName": names, "nphBatch": 1, "rlnDefocusU": 1e4, "rlnDefocusV": 1e4, "nphReason": "none",
         "rlnCtfMaxResolution": np.linspace(4, 9, 200), "nphKeep": 1}
    )  # fmt: skip
    write_table(project / "results" / "ctf" / "micrographs.star", table, block="micrographs")
    small = project / "results" / "ctf" / "figures" / "0001"
    for name in names:
        Image.fromarray(np.zeros((42, 100), dtype=np.uint8)).save(small / f"{name[:-4]}.png")
    page = render_report(collect(project, settings()))
    top, folded = page.split("The other 194 micrographs")
    assert "mic_200.mrc" in top and "mic_196.mrc" in top and "mic_100.mrc" not in top
    assert folded.count("<figure>") > 190


def test_methods_cite_in_order_and_say_what_was_done(sound):
    paragraphs, references = methods_text(sound)
    text = " ".join(paragraphs)
    numbers = [int(n) for group in re.findall(r"\[([\d, ]+)\]", text) for n in group.split(",")]
    first_seen = list(dict.fromkeys(numbers))
    assert first_seen == list(range(1, len(references) + 1))
    assert "7.10 Å at a Fourier shell correlation of 0.143" in text and "400 particles" in text
    assert "independently" in text and "CTFFIND4" in text
    shared, _ = methods_text(
        replace(sound, config=settings(refinement={"halves": "shared"}, ctf={"method": "powdefocus"}))
    )
    assert "against one reference" in " ".join(shared) and "rotational average" in " ".join(shared)
    chosen = {"filter": "butterworth", "snr": 3.0, "end_method": "richardson", "sharpening": "noise"}
    text = " ".join(methods_text(replace(sound, config=settings(refinement=chosen)))[0])
    for words in ("Butterworth", "signal-to-noise ratio of 3", "Richardson", "levelled beyond 10"):
        assert words in text
    capped = replace(sound, config=settings(refinement={"view_cap": 3}))
    weighed, _ = methods_text(changed(capped, particles=poses(EVEN).assign(nphNoiseLevel=1.0)))
    assert "weighed by the noise of their defocus group" in " ".join(weighed) and "more than 3 times" in " ".join(
        weighed
    )
    assert "weighed by the noise" not in text


def test_methods_state_each_optics_group(sound):
    several = settings(input={"particles": "p.star", "optics_groups": "several", "pixel_size": 2.0})
    text = " ".join(methods_text(replace(sound, config=several))[0])
    assert "several optics groups" in text and "300 kV" not in text
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1, 2], "rlnOpticsGroupName": ["fine", "coarse"], "rlnImagePixelSize": [2.0, 2.3],
            "rlnImageSize": [56, 50], "rlnVoltage": [300.0, 200.0], "rlnSphericalAberration": [2.7, 1.4],
            "rlnAmplitudeContrast": [0.1, 0.07],
        }
    )  # fmt: skip
    text = " ".join(methods_text(replace(sound, config=several, tables=sound.tables | {"optics": optics}))[0])
    assert "2 optics groups" in text
    assert "fine (56 pixels of 2 Å, 300 kV, spherical aberration 2.7 mm, amplitude contrast 0.1)" in text
    assert "coarse (50 pixels of 2.3 Å, 200 kV, spherical aberration 1.4 mm, amplitude contrast 0.07)" in text
    assert "300 kV" in " ".join(methods_text(sound)[0])


def test_comparison_shows_what_differs(sound, project):
    other = replace(
        collect(project, settings(refinement={"snr": 3.0})), summary=SUMMARY | {"resolution": {"fsc_0143": 9.5}}
    )
    assert setting_rows([sound, other]) == [("refinement.snr", ["–", "3"])]
    results = dict(result_rows([sound, other]))
    assert results["resolution at FSC 0.143, Å"] == ["7.10", "9.50"]
    lines = text_table(["one", "other"], result_rows([sound, other]))
    assert len({len(line) for line in lines}) == 1
    page = render_comparison([sound, other], ["one", "other"])
    assert "refinement.snr" in page and page.count("<img") >= 2
    assert not re.search(r"src=\"(?!data:)", page)
    assert page == render_comparison([sound, other], ["one", "other"])
    assert code_differs([other, replace(other, code={"pick": "def"})]) == "The code behind these steps differs: pick."


def test_the_commands_write_their_pages(project, tmp_path):
    def call(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    write_text(project / "config.yaml", "input:\n  pixel_size: 2.0\nparticle:\n  diameter: 90\n  box: 64\n")
    done = call("report", project)
    assert done.exit_code == 0 and "results/report.html: " in done.output
    assert (project / "results" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    other = tmp_path / "other"
    shutil.copytree(project, other)
    (other / "config.yaml").write_text("input:\n  pixel_size: 2.0\nparticle:\n  diameter: 95\n  box: 64\n")
    done = call("compare", project, other, "-o", tmp_path / "both.html")
    assert done.exit_code == 0 and re.search(r"particle.diameter +90 +95", done.output)
    assert "particle.diameter" in (tmp_path / "both.html").read_text(encoding="utf-8")
    (tmp_path / "new" / "results").mkdir(parents=True)
    (tmp_path / "new" / "config.yaml").write_text("")
    for words, said in (
        (("report", tmp_path / "new"), "no results yet"),
        (("compare", project), "at least two"),
        (("compare", project, tmp_path / "new"), "no results yet"),
    ):
        done = call(*words)
        assert done.exit_code == 2 and said in done.output
