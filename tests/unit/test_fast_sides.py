"""Good sides for Fourier transforms, beside scipy's."""

from __future__ import annotations

from scipy.fft import next_fast_len

from nephila.fast_sides import fast_even_side, fast_side, good_box


def test_sides_are_those_of_scipy():
    assert [fast_side(n) for n in range(1, 700)] == [next_fast_len(n, real=True) for n in range(1, 700)]
    assert fast_side(7.2) == 8
    assert fast_side(0) == 1


def test_even_sides_are_the_least_fast_ones():
    for n in range(1, 400):
        even = [side for side in range(n, 3 * n + 8) if side % 2 == 0 and next_fast_len(side, real=True) == side]
        assert fast_even_side(n) == even[0]
    assert good_box(3) == 16 and good_box(91) == 96
