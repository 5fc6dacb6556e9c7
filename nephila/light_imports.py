"""Libraries without the parts of others that they look for and Nephila never uses.

pyfftw loads scipy.fftpack to imitate it, numba loads scipy.linalg for products in compiled code: 0.3 CPU s at the start of every
job, a third of it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def import_without(name: str, left_out: str) -> ModuleType:
    """Import a module while `left_out` cannot be imported, which it takes for a library that is not installed.

    Afterwards `left_out` can be imported as ever. Where one of the two has been imported before, nothing is held back.
    """
    if name in sys.modules or left_out in sys.modules:
        return importlib.import_module(name)
    sys.modules[left_out] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[left_out]
