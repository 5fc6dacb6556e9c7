"""Atoms from a PDB or mmCIF file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nephila.errors import InputError
from nephila.simulate.density import Atoms

# Electron scattering factors at zero angle, A (Peng, Ren, Dudarev & Whelan 1996).
_FACTORS = {
    "H": 0.53, "C": 2.51, "N": 2.21, "O": 1.98, "F": 1.80, "Na": 4.78, "Mg": 5.21, "P": 5.49, "S": 5.16, "Cl": 4.86,
    "K": 8.98, "Ca": 9.91, "Mn": 7.51, "Fe": 7.17, "Co": 6.85, "Ni": 6.57, "Cu": 5.60, "Zn": 6.06, "Se": 7.26,
}  # fmt: skip


def read_structure(path: str | os.PathLike[str], assembly: str | None = None) -> Atoms:
    """Read the atoms of a PDB or mmCIF file (also .gz), centred on their centre of mass; water is left out.

    Parameters
    ----------
    assembly : name of the biological assembly to build ("1"); None takes the atoms as they stand in the first model

    Raises
    ------
    InputError
        No such file, not readable, no atoms, or no assembly of that name (the names are given).
    """
    import gemmi

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        structure = gemmi.read_structure(os.fspath(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable PDB or mmCIF file ({str(error).splitlines()[0]})") from error
    if len(structure) == 0:
        raise InputError(f"{path}: the file holds no atoms")
    structure.setup_entities()
    structure.remove_waters()
    model = structure[0]
    if assembly is not None:
        chosen = [a for a in structure.assemblies if a.name == assembly]
        if not chosen:
            names = ", ".join(a.name for a in structure.assemblies) or "none"
            raise InputError(f"{path}: no assembly {assembly!r}; the file has: {names}")
        model = gemmi.make_assembly(chosen[0], model, gemmi.HowToNameCopiedChain.Short)
    positions, weights = [], []
    for site in model.all():
        if site.atom.altloc not in ("\0", "", "A"):
            continue
        positions.append(site.atom.pos.tolist())
        weights.append(scattering_factor(site.atom.element.name, site.atom.element.atomic_number) * site.atom.occ)
    if not positions or not sum(weights) > 0:
        raise InputError(f"{path}: the file holds no atoms")
    xyz, w = np.array(positions, dtype=np.float64), np.array(weights, dtype=np.float64)
    return Atoms(xyz - np.average(xyz, axis=0, weights=w), w)


def scattering_factor(element: str, atomic_number: int) -> float:
    """Electron scattering factor at zero angle, A; for elements not in the table about 0.42 Z^0.85."""
    return _FACTORS.get(element.capitalize(), 0.42 * max(atomic_number, 1) ** 0.85)
