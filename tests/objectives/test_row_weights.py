"""Objectives under row weights, KL weights, masks and subsampling: what stock Pyro's ELBO is, and what a row counts."""

from contextlib import ExitStack
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import FixedNoise
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

from pyro_vae import (
    CapacityELBO,
    DoublyReparameterizedELBO,
    FreeBitsELBO,
    ImportanceWeightedELBO,
    StickingTheLandingELBO,
    TotalCorrelationELBO,
    log_mean_exp,
)

pytestmark = pytest.mark.usefixtures("float64")

NUM_ROWS, NUM_DIMS, NUM_ENTRIES = 4, 2, 3
WEIGHTS = torch.tensor([0.1, 1.0, 3.0, 0.5], dtype=torch.float64)
OTHERS = torch.tensor([2.0, 0.7, 1.0, 0.2], dtype=torch.float64)
ROWS = torch.tensor([True, False, True, True])
LATENTS = torch.tensor([False, True, True, True])
DIMS = torch.tensor([[True, True], [True, False], [True, True], [False, True]])
ENTRIES = torch.tensor(
    [[True, True, False], [True, True, True], [False, False, False], [True, False, True]]
)

# Where a number or a tensor by row enters Pyro.
CASES = {
    "nothing": {},
    "row weights around the plate": {"around": WEIGHTS},
    "row weights inside the plate": {"inside": WEIGHTS},
    "one weight for all": {"around": 0.25},
    "a KL weight": {"kl_weight": 0.3},
    "KL weights by row": {"kl_weight": OTHERS},
    "a tempered likelihood": {"temper": 0.5},
    "masked rows": {"rows": ROWS},
    "masked latents": {"latents": LATENTS},
    "masked elements of latents": {"dims": DIMS},
    "masked entries": {"entries": ENTRIES},
    "a subsample": {"size": 40},
    "weights and a subsample": {"around": WEIGHTS, "kl_weight": OTHERS, "size": 40},
    "weights and masks": {"inside": WEIGHTS, "kl_weight": 2.0, "rows": ROWS, "entries": ENTRIES},
    "all together": {
        "around": WEIGHTS,
        "inside": OTHERS,
        "kl_weight": OTHERS,
        "temper": 0.5,
        "rows": ROWS,
        "latents": LATENTS,
        "entries": ENTRIES,
        "size": 40,
    },
}
# Their KL has no meaning by dimension or by pair of rows where single elements are masked.
WITHOUT_DIMS = [name for name in CASES if "dims" not in CASES[name]]


class PathNormal(dist.Normal):
    """A normal whose density has no gradient but by its value."""

    def log_prob(self, value):
        return dist.Normal(self.loc.detach(), self.scale.detach()).log_prob(value)


class Program:
    """z ~ N(0, 1) and x | z ~ N(W z, 1) in rows, with a wrong guide of its own for each row, under handlers.

    Arguments:
        around: scales all sites from outside of the plate.
        inside: scales all sites from inside.
        kl_weight: scales z.
        temper: scales x.
        rows: masks all sites.
        latents: masks z.
        dims: masks elements of z.
        entries: masks entries of x.
        size: the rows that these stand for.
        index: which rows these are.
        normal: the family of the guide.
    """

    def __init__(self, index=range(NUM_ROWS), normal=dist.Normal, size=None, **handlers):
        generator = torch.Generator().manual_seed(3)
        draw = partial(torch.randn, generator=generator)
        index = torch.tensor(list(index))
        self.x = draw(NUM_ROWS, NUM_ENTRIES)[index]
        self.loc = (2 * draw(NUM_ROWS, NUM_DIMS))[index].requires_grad_()
        self.log_scale = (0.5 * draw(NUM_ROWS, NUM_DIMS))[index].requires_grad_()
        self.weight = draw(NUM_ENTRIES, NUM_DIMS).requires_grad_()
        self.parameters = [self.loc, self.log_scale, self.weight]
        self.normal, self.size = normal, size or len(index)
        self.handlers = {
            name: value[index] if isinstance(value, torch.Tensor) else value
            for name, value in handlers.items()
        }

    def scaled(self, *names):
        return self._entered(lambda value: poutine.scale(scale=value), names)

    def masked(self, *names):
        return self._entered(lambda value: poutine.mask(mask=value), names)

    def _entered(self, handler, names):
        stack = ExitStack()
        for name in names:
            if name in self.handlers:
                stack.enter_context(handler(self.handlers[name]))
        return stack

    def latent(self, normal):
        kept = self.handlers.get("dims")
        return (normal if kept is None else normal.mask(kept)).to_event(1)

    def plate(self):
        return pyro.plate("rows", self.size, subsample=torch.arange(len(self.x)))

    def model(self):
        entries = self.handlers.get("entries", torch.ones(NUM_ENTRIES, dtype=torch.bool))
        with self.scaled("around"), self.plate(), self.scaled("inside"), self.masked("rows"):
            with self.scaled("kl_weight"), self.masked("latents"):
                z = pyro.sample(
                    "z", self.latent(dist.Normal(torch.zeros(len(self.x), NUM_DIMS), 1.0))
                )
            with self.scaled("temper"):
                pyro.sample(
                    "x", dist.Normal(z @ self.weight.T, 1.0).mask(entries).to_event(1), obs=self.x
                )

    def guide(self):
        with (
            self.scaled("around"),
            self.plate(),
            self.scaled("inside", "kl_weight"),
            self.masked("rows", "latents"),
        ):
            pyro.sample("z", self.latent(self.normal(self.loc, self.log_scale.exp())))

    def run(self, objective, **kwargs):
        """The loss and its gradients."""
        torch.manual_seed(0)
        if isinstance(objective, Trace_ELBO):
            loss = objective.differentiable_loss(self.model, self.guide)
        else:
            loss = objective.differentiable_loss(self.model, self.guide, **kwargs)
        return loss, *torch.autograd.grad(loss, self.parameters)

    def bounds(self, num_particles):
        """L_K of each row at the draws of `run`, and how many rows it stands for."""
        get = self.handlers.get
        torch.manual_seed(0)
        q_z = dist.Normal(self.loc, self.log_scale.exp())
        z = q_z.rsample((num_particles,))
        kl = dist.Normal(0.0, 1.0).log_prob(z) - q_z.log_prob(z)
        kl = (kl * get("dims", 1.0)).sum(-1) * get("kl_weight", 1.0) * get("latents", 1.0)
        log_p_x = (dist.Normal(z @ self.weight.T, 1.0).log_prob(self.x) * get("entries", 1.0)).sum(
            -1
        )
        log_weights = (get("temper", 1.0) * log_p_x + kl) * get("rows", 1.0)
        weights = self.size / len(self.x) * get("around", 1.0) * get("inside", 1.0)
        return log_mean_exp(log_weights), weights


def assert_same(received, expected):
    torch.testing.assert_close(received, expected, rtol=1e-10, atol=1e-10)


# The negative ELBO of stock Pyro is where every objective starts from.


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "objective", [FreeBitsELBO(free_nats=0.0), CapacityELBO(gamma=1.0)], ids=["free", "capacity"]
)
def test_without_a_threshold_it_is_the_mean_field_elbo_of_pyro(objective, case):
    program = Program(**CASES[case])
    kwargs = {"kl_capacity": 0.0} if isinstance(objective, CapacityELBO) else {}
    assert_same(program.run(objective, **kwargs), program.run(TraceMeanField_ELBO()))


@pytest.mark.parametrize(
    ("objective", "cases"),
    [(ImportanceWeightedELBO(1), CASES), (TotalCorrelationELBO(beta=1.0), WITHOUT_DIMS)],
    ids=["bound", "correlation"],
)
def test_with_one_draw_it_is_the_elbo_of_pyro(objective, cases):
    for case in cases:
        program = Program(**CASES[case])
        assert_same(program.run(objective), program.run(Trace_ELBO()))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "objective", [StickingTheLandingELBO(1), DoublyReparameterizedELBO(1)], ids=["stl", "dreg"]
)
def test_with_one_draw_it_is_the_elbo_of_pyro_without_the_score(objective, case):
    assert_same(
        Program(**CASES[case]).run(objective),
        Program(normal=PathNormal, **CASES[case]).run(Trace_ELBO()),
    )


# More draws


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "bound", [ImportanceWeightedELBO, StickingTheLandingELBO, DoublyReparameterizedELBO]
)
def test_a_bound_is_that_of_each_row_times_the_rows_that_it_stands_for(bound, case):
    program = Program(**CASES[case])
    loss, *gradients = program.run(bound(5))
    bounds, weights = program.bounds(5)
    expected = -(weights * bounds).sum()
    slopes = list(torch.autograd.grad(expected, program.parameters))
    assert_same(loss, expected)
    assert_same(gradients[2], slopes[2])
    if bound is ImportanceWeightedELBO:  # the others estimate the guide's gradient otherwise
        assert_same(gradients, slopes)


# What a row counts

OBJECTIVES = {
    "free bits": (FreeBitsELBO(free_nats=1.5), {}),
    "capacity": (CapacityELBO(gamma=3.0), {"kl_capacity": 4.0}),
    "total correlation": (TotalCorrelationELBO(beta=4.0), {}),
    "importance weighted": (ImportanceWeightedELBO(3), {}),
    "sticking the landing": (StickingTheLandingELBO(3), {}),
    "doubly reparameterized": (DoublyReparameterizedELBO(3), {}),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_row_of_weight_2_counts_as_two_rows_and_one_that_is_masked_as_none(name):
    objective, kwargs = OBJECTIVES[name]
    make = partial(Program, normal=FixedNoise)  # every row draws the same noise in each of these
    weighted = make(around=torch.tensor([2.0, 5.0, 1.0, 1.0]), rows=ROWS, kl_weight=0.5)
    repeated = make(index=[0, 0, 2, 3], kl_weight=0.5)
    received, expected = weighted.run(objective, **kwargs), repeated.run(objective, **kwargs)
    assert_same(received[0], expected[0])
    assert_same(received[3], expected[3])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_weight_for_all_rows_is_a_factor_of_the_loss(name):
    objective, kwargs = OBJECTIVES[name]
    whole, part = Program().run(objective, **kwargs), Program(around=0.01).run(objective, **kwargs)
    assert_same(part, tuple(0.01 * term for term in whole))


def test_free_bits_are_those_of_the_weighted_mean_of_a_dimension():
    program = Program(around=WEIGHTS, dims=DIMS)
    loss, *_ = program.run(FreeBitsELBO(free_nats=1.3))
    kl = torch.distributions.kl_divergence(
        dist.Normal(program.loc, program.log_scale.exp()), dist.Normal(0.0, 1.0)
    )
    weights = WEIGHTS.unsqueeze(1) * DIMS
    distortion = program.run(FreeBitsELBO(free_nats=0.0))[0] - (weights * kl).sum()
    means = (weights * kl).sum(0) / weights.sum(0)
    assert means.min() < 1.3 < means.max()
    assert_same(loss, distortion + (weights.sum(0) * means.clamp(min=1.3)).sum())


def test_a_capacity_is_that_of_the_weighted_mean_of_the_rate_and_a_kl_weight_multiplies_gamma():
    program = Program(around=WEIGHTS, latents=LATENTS)
    loss, *_ = program.run(CapacityELBO(gamma=3.0), kl_capacity=50.0)
    kl = torch.distributions.kl_divergence(
        dist.Normal(program.loc, program.log_scale.exp()), dist.Normal(0.0, 1.0)
    )
    weights = WEIGHTS * LATENTS
    rate = (weights * kl.sum(1)).sum()
    distortion = program.run(CapacityELBO(gamma=1.0), kl_capacity=0.0)[0] - rate
    mean = rate / weights.sum()
    assert_same(loss, distortion + 3.0 * weights.sum() * abs(mean - 50.0))
    weighted = Program(around=WEIGHTS, latents=LATENTS, kl_weight=0.5).run(
        CapacityELBO(gamma=6.0), kl_capacity=50.0
    )
    assert_same(weighted[0], loss)


# What is refused


@pytest.mark.parametrize("name", ["free bits", "capacity", "total correlation"])
@pytest.mark.parametrize(
    "handler", [poutine.scale(scale=0.5), poutine.mask(mask=ROWS)], ids=["scale", "mask"]
)
def test_a_kl_of_two_weights_is_refused(name, handler):
    objective, kwargs = OBJECTIVES[name]
    program = Program()
    for model, guide in (
        (handler(program.model), program.guide),
        (program.model, handler(program.guide)),
    ):
        with pytest.raises(
            ValueError, match="'z' must have the same scale and mask in model and guide"
        ):
            objective.differentiable_loss(model, guide, **kwargs)


def test_a_total_correlation_of_masked_elements_is_refused():
    with pytest.raises(
        ValueError,
        match=r"a product over dimensions.* got z: Independent\(MaskedDistribution\(Normal",
    ):
        Program(dims=DIMS).run(TotalCorrelationELBO())


def test_a_mask_below_a_change_of_variables_is_refused_where_it_must_be_known():
    def guide():
        with pyro.plate("rows", NUM_ROWS):
            normal = dist.Normal(torch.zeros(NUM_ROWS, requires_grad=True), 1.0).mask(ROWS)
            pyro.sample("z", dist.TransformedDistribution(normal, [dist.transforms.ExpTransform()]))

    def model():
        with pyro.plate("rows", NUM_ROWS):
            z = pyro.sample("z", dist.LogNormal(torch.zeros(NUM_ROWS), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(NUM_ROWS))

    with pytest.raises(
        ValueError, match="'z' must be masked by poutine.mask, or by .mask of .* inside Transformed"
    ):
        DoublyReparameterizedELBO(2).differentiable_loss(model, guide)
