"""Sweeps over many cases, of which the default tests take some and the slow tests the rest."""

import pytest


def thinned(cases, step):
    """The cases; all but the first of every `step` are slow."""
    return [
        case if place % step == 0 else pytest.param(case, marks=pytest.mark.slow)
        for place, case in enumerate(cases)
    ]
