"""Schedules, and objectives that Pyro lacks or computes wrongly under plates."""

from pyro_vae.objectives.bounds import (
    DoublyReparameterizedELBO,
    ImportanceWeightedELBO,
    RowELBO,
    StickingTheLandingELBO,
)
from pyro_vae.objectives.penalties import (
    CapacityELBO,
    FreeBitsELBO,
    RateTerms,
    TotalCorrelationELBO,
)
from pyro_vae.objectives.schedules import (
    ConstantKL,
    CyclicalKL,
    KLSchedule,
    LinearCapacity,
    LinearWarmup,
    Schedule,
    scheduled_by,
)

__all__ = [
    "CapacityELBO",
    "ConstantKL",
    "CyclicalKL",
    "DoublyReparameterizedELBO",
    "FreeBitsELBO",
    "ImportanceWeightedELBO",
    "KLSchedule",
    "LinearCapacity",
    "LinearWarmup",
    "RateTerms",
    "RowELBO",
    "Schedule",
    "StickingTheLandingELBO",
    "TotalCorrelationELBO",
    "scheduled_by",
]
