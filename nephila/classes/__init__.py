"""Several conformations in one set of particles: assignment of each particle to one of K maps."""
