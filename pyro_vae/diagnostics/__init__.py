"""Diagnostics of the posterior q(z | x): calibration, annealing, gaps and collapse."""

from pyro_vae.diagnostics.calibration import Calibration, calibrate
from pyro_vae.diagnostics.collapse import CollapseReport, collapse_report
from pyro_vae.diagnostics.diagnosis import Diagnosis, diagnose
from pyro_vae.diagnostics.gaps import Gaps, inference_gaps
from pyro_vae.inference.annealing import Sandwich, sandwich

__all__ = [
    "Calibration",
    "CollapseReport",
    "Diagnosis",
    "Gaps",
    "Sandwich",
    "calibrate",
    "collapse_report",
    "diagnose",
    "inference_gaps",
    "sandwich",
]
