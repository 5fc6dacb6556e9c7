"""Nephila: single-particle reconstruction with defocus groups, as a Snakemake workflow."""

__version__ = "0.1.0"
