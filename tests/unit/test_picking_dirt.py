"""Few false picks where contaminants, a carbon edge and the micrograph's border tempt the pickers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from nephila.ctf import Optics
from nephila.picking import TemplateSet, TemplateSettings, candidates_table, choose_picks, pick_blobs, pick_by_templates
from nephila.picking.contaminants import mark_large
from nephila.simulate.density import density
from nephila.simulate.micrographs import MicrographSettings, Molecule, simulate_micrograph
from nephila.simulate.phantom import build_phantom

PIXEL, DIAMETER = 4.0, 150.0
OPTICS = Optics(300, 2.7, 0.1)
QUICK = TemplateSettings(views=40, in_plane_deg=18, fine_views=100, fine_in_plane_deg=12)
SETTINGS = MicrographSettings(
    shape=(640, 640), pixel_size=PIXEL, particles=22, defocus_range=(15000.0, 25000.0), noise=1.0, structural_noise=0.3, dirt=5.0
)  # fmt: skip
CARBON = 110  # px from the left side


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return density(build_phantom(DIAMETER, 4), 60, PIXEL)


@pytest.fixture(scope="module")
def micrographs(volume):
    """Protein bright: image, centres (x, y), pixels on dirt or carbon, defocus; the second has a carbon film at its left."""
    molecule = Molecule.from_volume(volume, PIXEL, DIAMETER)
    out = []
    for number in (1, 2, 3):
        made = simulate_micrograph(molecule, OPTICS, SETTINGS, 7, number)
        image = -made.image.astype(np.float32)
        smooth = scipy.ndimage.gaussian_filter(image, 6)
        foreign = np.abs(smooth - np.median(smooth)) > 5 * np.median(np.abs(smooth - np.median(smooth))) * 1.4826
        foreign = scipy.ndimage.binary_opening(foreign, iterations=8)
        table = made.particles
        centres = np.stack([table[f"rlnCoordinate{a}"] - table[f"rlnOrigin{a}Angst"] / PIXEL for a in "XY"], axis=1)
        if number == 2:
            x = np.arange(640)
            rough = np.random.default_rng(1).standard_normal((640, 640)) * 0.8 * image.std()
            image += (rough + 2.5 * image.std()) / (1 + np.exp((x - CARBON) / 3))
            foreign |= x[None, :] < CARBON
            centres = centres[centres[:, 0] > CARBON + DIAMETER / 2 / PIXEL]
        out.append((image.astype(np.float32), centres, foreign, (made.defocus_u, made.defocus_v, made.defocus_angle)))
    return out


@pytest.mark.parametrize("picker", ["blob", "templates"])
def test_false_picks_on_dirt_carbon_and_borders_are_few(picker: str, volume, micrographs) -> None:
    templates = TemplateSet.from_volume(volume, PIXEL, DIAMETER, QUICK) if picker == "templates" else None
    found = {}
    for number, (image, _, _, defocus) in enumerate(micrographs):
        if templates is None:
            found[str(number)] = pick_blobs(image, PIXEL, DIAMETER, None, defocus, OPTICS)
        else:
            found[str(number)] = pick_by_templates(image, PIXEL, templates, defocus, OPTICS, QUICK)
    table, _ = choose_picks(candidates_table(found), None, PIXEL, DIAMETER)
    radius = DIAMETER / 2 / PIXEL
    false, right, truth, near_foreign = 0, 0, 0, 0
    for number, (image, centres, foreign, _) in enumerate(micrographs):
        picks = table[(table["rlnMicrographName"] == str(number)) & (table["nphKeep"] == 1)]
        place = picks[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(float)
        side = min(place.min(), (np.array(image.shape)[::-1] - 1 - place).min())
        assert side >= 0.45 * 2 * radius, "a pick whose particle would stick out"
        distance = np.hypot(*(place[:, None] - centres[None]).transpose(2, 0, 1))
        wrong = distance.min(axis=1) > 0.5 * radius
        edge = scipy.ndimage.distance_transform_edt(~foreign) < 1.2 * radius
        tempted = edge[np.rint(place[:, 1]).astype(int), np.rint(place[:, 0]).astype(int)]
        false, near_foreign = false + int(wrong.sum()), near_foreign + int((wrong & tempted).sum())
        right, truth = right + int((distance.min(axis=0) <= 0.5 * radius).sum()), truth + len(centres)
    assert sum(f.sum() for _, _, f, _ in micrographs) > 3 * np.pi * radius**2
    assert near_foreign <= 0.03 * truth and false <= 0.05 * truth
    assert right >= 0.9 * truth


def test_large_areas_are_marked_and_crowds_of_particles_are_not() -> None:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:300, :400]
    image = rng.standard_normal((300, 400)) + 2e-3 * x + 4e-5 * (y - 150) ** 2
    for _ in range(60):
        row, column = rng.integers(20, 280), rng.integers(20, 380)
        image += 1.5 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 40)
    crowded = image.astype(np.float32)
    assert not mark_large(crowded, 20.0, 8.0).any()
    foreign = (x < 90) | (np.hypot(y - 200, x - 300) < 35)
    marked = mark_large((crowded + 4 * foreign).astype(np.float32), 20.0, 8.0)
    assert marked[foreign].mean() > 0.9 and marked[~foreign].mean() < 0.05
    assert not mark_large((crowded - 4 * foreign)[:30, :30].astype(np.float32), 20.0, 8.0).any()
