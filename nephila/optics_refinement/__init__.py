"""Refinement of optics against a map: defocus, aberrations and magnification. The pixel size of the tables is never touched."""
