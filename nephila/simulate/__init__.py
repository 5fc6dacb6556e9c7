"""Simulated data with known truth: a molecule, its micrographs, and a project folder that is ready to run."""
