"""Compiled inner loops (numba). Private: call them through the modules that check their inputs."""
