"""Spectra of a batch of micrographs on disk, between the job that makes them and the one that fits them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from nephila.errors import InputError
from nephila.io.atomic import atomic_path
from nephila.spectra import MicrographSpectrum

_ARRAYS = tuple(f.name for f in dataclasses.fields(MicrographSpectrum) if f.type not in ("float", "int", "str | None"))
_SCALARS = tuple(f.name for f in dataclasses.fields(MicrographSpectrum) if f.name not in _ARRAYS)


def save_spectra(path: str | os.PathLike[str], spectra: Mapping[str, MicrographSpectrum | str]) -> None:
    """Write spectra by micrograph name to an .npz; a text in place of a spectrum says why there is none."""
    arrays: dict[str, np.ndarray] = {}
    header = []
    for i, (name, spectrum) in enumerate(spectra.items()):
        if isinstance(spectrum, str):
            header.append({"name": name, "reason": spectrum})
            continue
        header.append({"name": name, **{key: getattr(spectrum, key) for key in _SCALARS}})
        arrays |= {f"{i}/{key}": getattr(spectrum, key) for key in _ARRAYS}
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, allow_pickle=False, header=np.array(json.dumps(header)), **arrays)


def load_spectra(path: str | os.PathLike[str]) -> Iterator[tuple[str, MicrographSpectrum | str]]:
    """Micrograph names and their spectra (or why there is none), one at a time. InputError where the file is not readable."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            for i, entry in enumerate(json.loads(str(archive["header"]))):
                if "reason" in entry:
                    yield entry["name"], entry["reason"]
                    continue
                arrays = {key: archive[f"{i}/{key}"] for key in _ARRAYS}
                yield entry["name"], MicrographSpectrum(**arrays, **{key: entry[key] for key in _SCALARS})
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a file of spectra ({error}); delete it and run again") from error


def power_stack(spectra: Iterable[MicrographSpectrum | str]) -> tuple[np.ndarray, float]:
    """Average spectra [m, tile, tile], origin at tile // 2 (SPIDER's pw_avg; blank where there is none), and pixel size (A)."""
    every = list(spectra)
    made = [s for s in every if not isinstance(s, str)]
    if not made:
        return np.zeros((len(every), 1, 1), dtype=np.float32), 1.0
    tile = made[0].tile_px
    stack = np.zeros((len(every), tile, tile), dtype=np.float32)
    for i, spectrum in enumerate(every):
        if not isinstance(spectrum, str):
            stack[i] = spectrum.full_power()
    return stack, made[0].pixel_size
