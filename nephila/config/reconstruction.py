"""Keys of the first reconstruction, and of the iterative ways to solve for a volume, which the refinement's end uses too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from nephila.config.base import Band, Count, NotNegative, Positive, Section

Method = Literal["direct", "conjugate_gradients", "richardson"]
HalfBoxes = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class ConjugateGradients(Section):
    """Conjugate gradients (SPIDER's BP CG), here and at the refinement's end."""

    rounds: Count = Field(
        5,
        description="Most rounds, from the direct division's volume (SPIDER: 25, from nothing). More follow the data further into "
        "the gaps between views.",
    )
    prior: NotNegative = Field(
        3.0,
        description="Where no snr is given: weight of the signal-to-noise ratio that the map itself shows by shell; 0: none.",
    )
    smoothness: NotNegative = Field(
        0.0,
        description="Weight of the squared first derivative, in units of the data's mean weight at Nyquist (SPIDER: lambda 2000, "
        "in units of its own). 1 to 5 smooth visibly.",
    )
    radius: HalfBoxes = Field(
        1.0, description="Sphere that holds the object, in half box sides; its outer fifth fades out."
    )


class Richardson(Section):
    """Constrained Richardson iteration (SPIDER's BP RP), here and at the refinement's end."""

    rounds: Count = Field(50, description="Most rounds (SPIDER: 60); fewer leave fine details weaker, and noise too.")
    step: float = Field(
        1.0,
        gt=0,
        lt=2,
        description="Step in units of the largest stable one (SPIDER: lambda 0.2e-5, in units of its own).",
    )
    radius: HalfBoxes = Field(0.95, description="Sphere that holds the object, in half box sides (SPIDER: 0.95).")
    positive: bool = Field(False, description="Raise negative values to 0 after each round.")


class Reconstruction(Section):
    """The first reconstruction, by defocus group."""

    method: Method = Field(
        "direct", description="How a volume is solved for: gridding with direct division, BP CG, or BP RP."
    )
    snr: Positive | None = Field(
        3.0,
        description="Constant signal-to-noise ratio of the Wiener merge over groups, for every method (SPIDER: 3). Empty: "
        "conjugate_gradients take it from the map itself, richardson does without; direct needs one.",
    )
    filter_pass: float = Field(
        0.05,
        ge=0,
        lt=0.5,
        description="filt: the Butterworth filter's pass band lies so far below the frequency of the volume's resolution (but not "
        "below half of it), in units of sampling (Nyquist is 0.5).",
    )
    filter_stop: Band = Field(0.05, description="filt: its stop band lies so far above it, at most at Nyquist.")
    conjugate_gradients: ConjugateGradients = Field(
        default_factory=ConjugateGradients,
        description="Settings of conjugate_gradients, as method and as refinement.end_method.",
    )
    richardson: Richardson = Field(
        default_factory=Richardson, description="Settings of richardson, as method and as refinement.end_method."
    )

    def options_of(self, method: Method) -> dict[str, Any]:
        """What solving by a method depends on besides the SNR."""
        if method == "direct":
            return {}
        chosen = self.richardson if method == "richardson" else self.conjugate_gradients
        return chosen.model_dump()
