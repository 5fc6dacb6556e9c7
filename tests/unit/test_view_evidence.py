"""Aligned particles that are unlike the others of their view: evidence, proposal, and the user's last word."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nephila.averaging import select_by_view
from nephila.ctf import Optics, ctf_2d
from nephila.errors import InputError
from nephila.fourier import centred_irfft2, centred_rfft2
from nephila.geometry import euler_matrix, quasi_even_directions
from nephila.plan import kept_by_hand
from nephila.projection import FourierProjector
from nephila.simulate.micrographs import random_rotations
from nephila.view_evidence import (
    COLUMNS,
    component_distances,
    drop_doubted,
    propose_by_views,
    shifted_to_the_limit,
    view_evidence,
)

BOX, PIXEL, DIAMETER = 40, 6.0, 150.0
TITAN = Optics(300.0, 2.7, 0.1)
NUMBER, BAD = 360, 12  # of each kind: edges, halves of particles


def blobs(seed: int) -> np.ndarray:
    """A lumpy object within the diameter."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    out = np.zeros((BOX,) * 3, dtype=np.float32)
    while out.max() < 6:
        place = rng.uniform(-9, 9, 3)
        if np.linalg.norm(place) < 9:
            out += np.exp(-((z - place[0]) ** 2 + (y - place[1]) ** 2 + (x - place[2]) ** 2) / 6).astype(np.float32)
    return out


@pytest.fixture(scope="module")
def group():
    """Images, poses, and what each is: 0 a particle, 1 at the edge of contamination, 2 off centre by half the diameter."""
    rng = np.random.default_rng(4)
    kind = rng.permutation(np.repeat([0, 1, 2], [NUMBER - 2 * BAD, BAD, BAD]))
    rotations = random_rotations(NUMBER, rng)
    projector = FourierProjector.from_volume(blobs(1))
    angle = rng.uniform(0, 2 * np.pi, NUMBER)
    shifts = np.where((kind == 2)[:, None], np.stack([np.cos(angle), np.sin(angle)], 1) * DIAMETER / 2 / PIXEL, 0.0)
    images = projector.project(rotations, shifts)
    signal = float(images[kind == 0].std())
    images = centred_irfft2(centred_rfft2(images) * ctf_2d((BOX, BOX), PIXEL, 2e4, 2e4, 0.0, TITAN), BOX)
    images += 1.5 * signal * rng.standard_normal(images.shape).astype(np.float32)
    x = np.arange(BOX) - BOX // 2
    for i in np.flatnonzero(kind == 1):
        along = np.cos(angle[i]) * x[None, :] + np.sin(angle[i]) * x[:, None]
        images[i] -= 6 * signal / (1 + np.exp(-along / 2))
    from nephila.geometry import matrix_to_euler

    rot, tilt, psi = matrix_to_euler(rotations)
    table = pd.DataFrame(
        {
            "rlnMicrographName": "a.mrc", "nphParticleNumber": np.arange(1, NUMBER + 1), "nphCorrelation": 0.5,
            "rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": psi, "rlnOriginXAngst": 0.0, "rlnOriginYAngst": 0.0,
            "rlnDefocusU": 20100.0, "rlnDefocusV": 19900.0, "nphDefocusGroup": 1,
        }
    )  # fmt: skip
    directions = quasi_even_directions(15.0)
    references = projector.project(euler_matrix(directions[:, 0], directions[:, 1], 0.0))
    return images, table, directions, references, kind


def evidence_of(group, rows=slice(None)) -> pd.DataFrame:
    images, table, directions, references, _ = group
    part = table.iloc[rows].reset_index(drop=True)
    return view_evidence(
        images[rows], part, select_by_view(part, directions), references,
        pixel_size=PIXEL, diameter=DIAMETER, optics=TITAN,
    )  # fmt: skip


@pytest.fixture(scope="module")
def evidence(group) -> pd.DataFrame:
    return evidence_of(group)


def test_planted_bad_particles_are_proposed_and_good_ones_are_not(group, evidence) -> None:
    kind = group[-1]
    proposal = propose_by_views(evidence, 3.0)
    dropped = proposal["nphKeep"].to_numpy() == 0
    assert dropped[kind == 1].mean() >= 0.9 and dropped[kind == 2].mean() >= 0.5
    assert dropped[kind == 0].mean() <= 0.01
    assert (proposal.loc[dropped, "nphReason"] != "none").all() and (
        proposal.loc[~dropped, "nphReason"] == "none"
    ).all()
    assert (proposal.loc[dropped, "nphDoubt"] > 3).all() and (proposal.loc[~dropped, "nphDoubt"] <= 3).all()
    assert propose_by_views(evidence, 0.0)["nphKeep"].all()


def test_an_alignment_at_its_limit_counts_against_a_particle(group, evidence) -> None:
    at_limit = shifted_to_the_limit(pd.DataFrame({"rlnOriginXAngst": [0, -25.0], "rlnOriginYAngst": [24.0, 3]}), 25.0)
    assert at_limit.tolist() == [False, True]
    plain, moved = propose_by_views(evidence, 3.0), propose_by_views(evidence, 3.0, np.ones(NUMBER))
    assert (moved["nphDoubt"] >= plain["nphDoubt"]).all() and moved["nphKeep"].sum() < plain["nphKeep"].sum()
    pd.testing.assert_frame_equal(propose_by_views(evidence, 3.0, np.zeros(NUMBER)), plain)


def test_evidence_does_not_depend_on_the_order(group, evidence) -> None:
    order = np.random.default_rng(1).permutation(NUMBER)
    again = evidence_of(group, order)
    np.testing.assert_allclose(again.to_numpy(), evidence.to_numpy()[order], rtol=2e-3, atol=2e-3)


def test_a_small_group_is_not_judged(group) -> None:
    found = evidence_of(group, np.arange(20))
    assert found.columns.tolist() == list(COLUMNS) and found.isna().all().all()
    proposal = propose_by_views(found, 3.0)
    assert proposal["nphKeep"].all() and (proposal["nphReason"] == "none").all()
    assert not len(propose_by_views(found.iloc[:0], 3.0))


def test_components_find_what_few_have_in_common() -> None:
    rng = np.random.default_rng(3)
    rest = rng.standard_normal((400, 60)).astype(np.float32)
    rest[:8] += 3 * rng.standard_normal((8, 1)) * np.sin(np.arange(60)) + 9 * np.cos(np.arange(60))
    distance, left = component_distances(rest, 4)
    assert distance[:8].min() > 3 * np.median(distance) and distance[8:].max() < 3 * np.median(distance)
    assert left[8:].max() < 2 and np.median(left) == pytest.approx(1.0)


def test_the_user_has_the_last_word(group, evidence, tmp_path) -> None:
    from nephila.io.tables import write_table

    table = group[1]
    doubts = pd.concat([table[["rlnMicrographName", "nphParticleNumber"]], propose_by_views(evidence, 3.0)], axis=1)
    dropped = table["nphParticleNumber"][doubts["nphKeep"] == 0].tolist()
    edit = pd.DataFrame({"rlnMicrographName": ["a.mrc", "a.mrc", "b.mrc"], "nphKeep": [1, 0, 1]})
    edit["nphParticleNumber"] = [dropped[0], dropped[1], dropped[2]]
    write_table(tmp_path / "good.star", edit, kind="good")
    by_hand = kept_by_hand(str(tmp_path / "good.star"), ["a.mrc"])
    assert by_hand == [("a.mrc", dropped[0])]
    kept = drop_doubted(table, doubts, by_hand)["nphParticleNumber"].tolist()
    assert set(range(1, NUMBER + 1)) - set(kept) == set(dropped[1:])
    with pytest.raises(InputError, match="does not belong to this alignment"):
        drop_doubted(table.iloc[1:], doubts)


def test_views_and_particles_must_belong_together(group) -> None:
    images, table, directions, references, _ = group
    views = select_by_view(table, directions)
    sizes = {"pixel_size": PIXEL, "diameter": DIAMETER, "optics": TITAN}
    with pytest.raises(InputError, match="use the same table"):
        view_evidence(images, table, views.iloc[1:], references, **sizes)
    with pytest.raises(InputError, match="but there are 3 views"):
        view_evidence(images, table, views, references[:3], **sizes)
