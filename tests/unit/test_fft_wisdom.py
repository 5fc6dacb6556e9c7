"""Plans from a wisdom file: same results, read where the environment says so, a clear error where it is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nephila import fft_wisdom
from nephila.errors import InputError

SCRIPT = """
import hashlib, sys, numpy as np
from nephila.fourier import irfft2, rfft2
x = np.random.default_rng(0).standard_normal((2, 30, 30), dtype=np.float32)
t = rfft2(x)
assert np.abs(t - np.fft.rfft2(x)).max() < 1e-3 and np.abs(irfft2(t, 30) - x).max() < 1e-5
assert np.abs(rfft2(x[:, :21, :22]) - np.fft.rfft2(x[:, :21, :22])).max() < 1e-3  # a side that was not planned
print(hashlib.sha256(t.tobytes()).hexdigest())
"""


def transform_with(wisdom: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={"NEPHILA_FFT_WISDOM": str(wisdom)}, capture_output=True, text=True,
        cwd=Path(fft_wisdom.__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_same_bytes_from_the_same_wisdom(tmp_path: Path) -> None:
    fft_wisdom.write(tmp_path / "fft.wisdom", [30])
    assert (tmp_path / "fft.wisdom").read_bytes().startswith(b"(fftw")
    assert transform_with(tmp_path / "fft.wisdom") == transform_with(tmp_path / "fft.wisdom")


def test_missing_wisdom_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fft_wisdom.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(InputError, match="python -m nephila.fft_wisdom"):
        fft_wisdom.load()
    monkeypatch.delenv(fft_wisdom.VARIABLE)
    assert not fft_wisdom.load()


def test_sides_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sides"):
        fft_wisdom.write(tmp_path / "fft.wisdom", [])


def test_plans_are_as_numpy() -> None:
    for forward in (True, False):
        plan = fft_wisdom.image_plan(6, 9, forward, ("FFTW_ESTIMATE",))
        data = np.random.default_rng(1).standard_normal((6, 9))
        plan.input_array[:] = data if forward else np.fft.rfft2(data)
        plan.execute()
        expected = np.fft.rfft2(data) if forward else 54 * data
        assert np.abs(plan.output_array - expected).max() < 1e-3
