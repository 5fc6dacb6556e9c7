"""An initial model from the particles alone: stochastic expectation maximisation at low resolution, several tries, ranked."""

from nephila.initial_model.build import InitialModel, make_initial_model
from nephila.initial_model.settings import InitialModelSettings

__all__ = ["InitialModel", "InitialModelSettings", "make_initial_model"]
