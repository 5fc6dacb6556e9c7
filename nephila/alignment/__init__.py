"""Alignment of particles to a reference: exhaustive, local, and on SPIDER's grid."""

from nephila.alignment.ctfs import ParticleCtfs
from nephila.alignment.grids import OrientationGrid, ShiftGrid
from nephila.alignment.search import BLOCK, align_exhaustively, align_locally
from nephila.alignment.settings import AlignmentResult, AlignmentSettings, Poses

__all__ = [
    "BLOCK",
    "AlignmentResult",
    "AlignmentSettings",
    "OrientationGrid",
    "ParticleCtfs",
    "Poses",
    "ShiftGrid",
    "align_exhaustively",
    "align_locally",
]
