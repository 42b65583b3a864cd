"""Importance-weighted bounds: exact where the posterior is, by hand elsewhere, and gradients that agree in expectation."""

import math
from contextlib import nullcontext
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from models import PriorAsPosterior, binary_vae, linear, linear_gaussian_vae
from pyro import poutine
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from references import LinearGaussian
from torch import nn

from pyro_vae import (
    SVI,
    DoublyReparameterizedELBO,
    Execution,
    ImportanceWeightedELBO,
    Posterior,
    StickingTheLandingELBO,
    log_mean_exp,
)

BOUNDS = [ImportanceWeightedELBO, StickingTheLandingELBO, DoublyReparameterizedELBO]
PATHWISE = [StickingTheLandingELBO, DoublyReparameterizedELBO]

float64 = pytest.mark.usefixtures("float64")


class AffinePosterior(Posterior):
    """q(z | x) = N(A x + a, L Lᵀ), all of it learned."""

    def __init__(self, loc, scale_tril):
        super().__init__(loc, loc.in_features, loc.out_features)
        self.scale_tril = nn.Parameter(scale_tril)

    def forward(self, x, y=None):
        return dist.MultivariateNormal(self.call_network(x), scale_tril=self.scale_tril)


def exact_vae(reference):
    """A VAE whose learned posterior is the exact one."""
    weight = reference.precision.inverse() @ reference.weight.T
    posterior = AffinePosterior(
        linear(weight, -weight @ reference.bias),
        torch.linalg.cholesky(reference.posterior_covariance()),
    )
    return linear_gaussian_vae(reference, posterior)


class Conjugate:
    """z ~ N(0, 1) and x | z ~ N(z + shift, 1) at x = 1, with a wrong guide, in many rows that are alike.

    Each row has parameters of its own, so one pass gives as many independent gradients.

    Arguments:
        num_rows: how many rows.
        normal: the family of the guide.
        masked: masks the latent.
    """

    def __init__(self, num_rows, normal=dist.Normal, masked=nullcontext):
        values = -0.4, 0.1, 0.2
        self.parameters = [torch.full((num_rows,), value, requires_grad=True) for value in values]
        self.normal, self.masked = normal, masked

    def model(self, kl_weight=1.0):
        *_, shift = self.parameters
        with pyro.plate("rows", len(shift)):
            with poutine.scale(scale=kl_weight), self.masked():
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + shift, 1.0), obs=torch.ones_like(shift))

    def guide(self, kl_weight=1.0):
        loc, log_scale, _ = self.parameters
        with pyro.plate("rows", len(loc)), poutine.scale(scale=kl_weight), self.masked():
            return pyro.sample("z", self.normal(loc, log_scale.exp()))

    def gradients(self, objective, seed=0, **kwargs):
        """Those of the loss by loc, log_scale and shift, in each row."""
        torch.manual_seed(seed)
        loss = objective.differentiable_loss(self.model, self.guide, **kwargs)
        return torch.autograd.grad(loss, self.parameters)


class NormalByNoise(dist.Normal):
    """A normal that scores its own draw by the noise it was made of, and so past z, as flows do."""

    def rsample(self, sample_shape=()):
        self.drawn = super().rsample(sample_shape)
        self.noise = ((self.drawn - self.loc) / self.scale).detach()
        return self.drawn

    def log_prob(self, value):
        if value is not self.drawn:
            return super().log_prob(value)
        return dist.Normal(0.0, 1.0).log_prob(self.noise) - self.scale.log()


@pytest.fixture
def reference():
    return LinearGaussian(torch.randn(5, 3), torch.randn(5), 0.7)


def value_and_gradients(objective, vae, x, seed=0, **kwargs):
    torch.manual_seed(seed)
    loss = objective.differentiable_loss(vae.model, vae.guide, x, **kwargs)
    return loss, torch.autograd.grad(loss, list(vae.parameters()))


def standard_errors(values):
    """The mean, in its own standard errors."""
    return (values.mean() / values.std() * len(values) ** 0.5).item()


# Values


@float64
@pytest.mark.parametrize("num_particles", [1, 5, 50])
@pytest.mark.parametrize("bound", BOUNDS)
def test_with_the_exact_posterior_the_bound_is_the_log_marginal_for_every_draw(
    reference, bound, num_particles
):
    vae, x = exact_vae(reference), torch.randn(7, 5)
    for _ in range(3):
        loss = bound(num_particles).loss(vae.model, vae.guide, x)
        assert loss == pytest.approx(-reference.log_marginal(x).sum().item(), abs=1e-10)


@float64
def test_with_one_particle_value_and_gradients_are_those_of_trace_elbo():
    vae = binary_vae()
    x = vae.sample(6)
    received = value_and_gradients(ImportanceWeightedELBO(1), vae, x)
    torch.testing.assert_close(
        received, value_and_gradients(Trace_ELBO(), vae, x), rtol=1e-12, atol=1e-12
    )


# The bounds L_K of z ~ N(0, 1), x | z ~ N(z, 1) at x = 1 with the prior as guide.
GOLDEN_BOUNDS = {1: -1.918939, 2: -1.6536, 5: -1.5573, 10: -1.5351, 50: -1.5191, 500: -1.5159}


@float64
@pytest.mark.parametrize("num_particles", GOLDEN_BOUNDS)
def test_the_bounds_of_a_conjugate_model_have_their_known_values(num_particles):
    # Failure rate: 3e-4 each (4 standard errors of 40 blocks), at a fixed seed.
    reference = LinearGaussian(torch.ones(1, 1), torch.zeros(1), 1.0)
    vae = linear_gaussian_vae(reference, PriorAsPosterior(nn.Identity(), 1, 1))
    x, objective = torch.ones(10_000 // num_particles, 1), ImportanceWeightedELBO(num_particles)
    bounds = torch.tensor([-objective.loss(vae.model, vae.guide, x) / len(x) for _ in range(40)])
    assert abs(bounds.mean() - GOLDEN_BOUNDS[num_particles]) < 4 * bounds.std() / 40**0.5 + 5e-5


@float64
@pytest.mark.parametrize("kl_weight", [1.0, 0.3, torch.tensor(2.0)])
@pytest.mark.parametrize("bound", BOUNDS)
def test_the_bound_is_the_log_of_mean_weights_in_which_the_kl_weight_acts_once(bound, kl_weight):
    vae = binary_vae()
    x = vae.sample(6)
    q_z = vae.encode(x)
    torch.manual_seed(1)
    z = q_z.rsample((4,))
    log_weights = vae.decode(z).log_prob(x) + kl_weight * (
        vae.prior().log_prob(z) - q_z.log_prob(z)
    )
    expected = -log_weights.exp().mean(0).log().sum()
    torch.manual_seed(1)
    loss = bound(4).loss(vae.model, vae.guide, x, kl_weight=kl_weight)
    assert loss == pytest.approx(expected.item(), rel=1e-12)


# Gradients


@float64
@pytest.mark.parametrize("num_particles", [1, 5])
def test_at_the_exact_posterior_only_the_pathwise_gradients_of_the_guide_vanish(
    reference, num_particles
):
    vae, x = exact_vae(reference), torch.randn(7, 5)
    for bound in BOUNDS:
        loss = bound(num_particles).differentiable_loss(vae.model, vae.guide, x)
        for gradient in torch.autograd.grad(loss, list(vae.posterior.parameters())):
            assert (gradient.abs().max() <= 1e-10) == (bound in PATHWISE)


@float64
@pytest.mark.parametrize("num_particles", [1, 5])
@pytest.mark.parametrize("kl_weight", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("bound", BOUNDS)
def test_gradients_are_those_by_hand_at_the_same_draws(bound, kl_weight, num_particles):
    rows = Conjugate(3)
    received = rows.gradients(bound(num_particles), kl_weight=kl_weight)
    loc, log_scale, shift = (parameter.detach() for parameter in rows.parameters)
    q_z = dist.Normal(loc, log_scale.exp())
    torch.manual_seed(0)
    z = q_z.sample((num_particles,))
    noise = (z - loc) / q_z.scale
    log_p_x, log_p_z, log_q_z = -((1 - z - shift) ** 2) / 2, -(z**2) / 2, -(noise**2) / 2
    shares = (log_p_x + kl_weight * (log_p_z - log_q_z)).softmax(0)
    by_z = 1 - z - shift + kl_weight * (noise / q_z.scale - z)
    by_loc, by_log_scale = by_z, by_z * (z - loc)
    if bound is ImportanceWeightedELBO:
        by_loc, by_log_scale = (
            by_loc - kl_weight * noise / q_z.scale,
            by_log_scale - kl_weight * (noise**2 - 1),
        )
    guide_shares = shares
    if bound is DoublyReparameterizedELBO:
        guide_shares = shares * (1 - kl_weight + kl_weight * shares)
    expected = guide_shares * by_loc, guide_shares * by_log_scale, shares * (1 - z - shift)
    torch.testing.assert_close(
        received, tuple(-term.sum(0) for term in expected), rtol=1e-10, atol=1e-12
    )


@float64
@pytest.mark.parametrize("kl_weight", [1.0, 0.5, 2.0])
def test_the_doubly_reparameterised_gradient_is_that_of_the_bound_in_expectation(kl_weight):
    # Failure rate: 6e-5 for each of two gradients (4 standard errors of 1e5 paired draws), at a fixed seed.
    rows = Conjugate(100_000)
    expected = rows.gradients(ImportanceWeightedELBO(5), kl_weight=kl_weight)
    received = rows.gradients(DoublyReparameterizedELBO(5), kl_weight=kl_weight)
    for ours, other in zip(received[:2], expected[:2], strict=True):
        assert abs(standard_errors(ours - other)) < 4


HALF = torch.arange(200_000) < 100_000
MASKS = {
    "of rows": {"masked": partial(poutine.mask, mask=HALF)},
    "of all": {"masked": partial(poutine.mask, mask=False)},
    "of the guide's distribution": {"normal": lambda *numbers: dist.Normal(*numbers).mask(HALF)},
    "of both": {
        "masked": partial(poutine.mask, mask=HALF),
        "normal": lambda *numbers: dist.Normal(*numbers).mask(torch.arange(200_000) % 2 == 0),
    },
}


@float64
@pytest.mark.parametrize("mask", MASKS)
def test_the_doubly_reparameterised_gradient_is_that_of_the_bound_where_the_latent_is_masked(mask):
    # Failure rate: 6e-5 for each of four gradients (4 standard errors of 1e5 paired draws), at a fixed seed.
    rows = Conjugate(200_000, **MASKS[mask])
    expected = rows.gradients(ImportanceWeightedELBO(5), kl_weight=0.5)
    received = rows.gradients(DoublyReparameterizedELBO(5), kl_weight=0.5)
    for ours, other in zip(received[:2], expected[:2], strict=True):
        difference = (ours - other).reshape(2, -1)
        for half in difference[
            difference.abs().amax(1) > 1e-12
        ]:  # without a density of z both are the same
            assert abs(standard_errors(half)) < 4


@float64
def test_without_the_score_the_gradient_is_unbiased_for_one_draw_and_biased_for_more():
    # Failure rate: 6e-5 for each of two gradients (4 standard errors of 1e5 draws), at a fixed seed.
    rows = Conjugate(100_000)
    loc, log_scale, shift = (parameter[0].item() for parameter in rows.parameters)
    # -ELBO = (loc² + scale²) / 2 + ((1 - loc - shift)² + scale²) / 2 - log scale + constant
    expected = loc - (1 - loc - shift), 2 * math.exp(2 * log_scale) - 1
    for gradient, exact in zip(rows.gradients(StickingTheLandingELBO(1)), expected, strict=False):
        assert abs(standard_errors(gradient - exact)) < 4
    biased, *_ = rows.gradients(StickingTheLandingELBO(5))
    unbiased, *_ = rows.gradients(ImportanceWeightedELBO(5))
    assert abs(standard_errors(biased - unbiased)) > 100  # 500 of them


@float64
def test_the_encoders_signal_fades_with_the_number_of_draws_for_one_gradient_and_not_for_the_other():
    # Signal over noise of loc's gradient at K = 4, 16, 64: in theory each step halves it for IWAE and doubles it for DReG.
    # Failure rate: 2e-4. The first ratios come out near 0.43 and 0.51, give or take 0.03 and 0.05, from 20,000 draws.
    rows = Conjugate(20_000)
    ratios = {}
    for bound in (ImportanceWeightedELBO, DoublyReparameterizedELBO):
        gradients = [rows.gradients(bound(num_particles))[0] for num_particles in (4, 16, 64)]
        ratios[bound] = [abs(gradient.mean() / gradient.std()).item() for gradient in gradients]
    fading, lasting = ratios.values()
    assert 0.3 < fading[1] / fading[0] < 0.75
    assert 0.3 < fading[2] / fading[1] < 0.75
    assert lasting[0] < lasting[1] < lasting[2]


@float64
@pytest.mark.parametrize("bound", PATHWISE)
def test_values_and_gradients_of_the_model_do_not_depend_on_how_the_guide_is_differentiated(bound):
    vae = binary_vae()
    x = vae.sample(6)
    results = [
        value_and_gradients(objective(5), vae, x) for objective in (ImportanceWeightedELBO, bound)
    ]
    names = [name for name, _ in vae.named_parameters()]
    (expected, gradients), (received, others) = results
    torch.testing.assert_close(received, expected, rtol=1e-12, atol=0)
    for name, gradient, other in zip(names, gradients, others, strict=True):
        assert torch.allclose(gradient, other, rtol=1e-10, atol=1e-12) == name.startswith(
            "likelihood"
        ), name


@float64
@pytest.mark.parametrize("bound", BOUNDS)
def test_gradients_are_the_same_where_the_guide_remembers_its_noise(bound):
    results = [Conjugate(10, normal).gradients(bound(5)) for normal in (dist.Normal, NormalByNoise)]
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


# Plates, scales, masks


@float64
@pytest.mark.parametrize("bound", BOUNDS)
def test_batches_that_stand_for_the_data_average_to_its_bound(reference, bound):
    vae, x = exact_vae(reference), torch.randn(12, 5)
    objective = bound(5)
    losses = [objective.loss(vae.model, vae.guide, batch, size=12) for batch in x.split(4)]
    assert sum(losses) / 3 == pytest.approx(objective.loss(vae.model, vae.guide, x), rel=1e-12)


@float64
@pytest.mark.parametrize("bound", BOUNDS)
def test_value_and_gradients_grow_in_proportion_to_the_data_that_a_batch_stands_for(bound):
    vae = binary_vae()
    x = vae.sample(6)
    loss, gradients = value_and_gradients(bound(5), vae, x, kl_weight=0.3)
    scaled = value_and_gradients(bound(5), vae, x, kl_weight=0.3, size=6000)
    expected = 1000 * loss, tuple(1000 * gradient for gradient in gradients)
    torch.testing.assert_close(scaled, expected, rtol=1e-10, atol=1e-10)


@float64
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_plate_of_features_inside_the_row_plate_is_the_same_as_an_event_dimension(
    reference, bound
):
    x = torch.randn(7, 5)
    loc = torch.randn(7, 3, requires_grad=True)

    def model(decode, *rows):
        with pyro.plate("rows", 7, dim=-len(rows) - 1):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            decode(z @ reference.weight.T)

    def guide(decode, *rows):
        with pyro.plate("rows", 7, dim=-len(rows) - 1):
            pyro.sample("z", dist.Normal(loc.reshape(7, *rows, 3), 1.0).to_event(1))

    def by_event(mean):
        pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=x)

    def by_plate(mean):
        with pyro.plate("features", 5, dim=-1):
            pyro.sample("x", dist.Normal(mean.squeeze(-2), 0.7), obs=x)

    results = []
    for nesting, arguments in ((1, (by_event,)), (2, (by_event,)), (2, (by_plate, 1))):
        torch.manual_seed(1)
        loss = bound(4, max_plate_nesting=nesting).differentiable_loss(model, guide, *arguments)
        results.append((loss, *torch.autograd.grad(loss, [loc])))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(results[2], results[0], rtol=1e-12, atol=1e-12)


@float64
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_masked_row_adds_nothing_and_moves_nothing(reference, bound):
    vae, x = exact_vae(reference), torch.randn(7, 5)
    kept = torch.arange(7) % 3 > 0
    model, guide = poutine.mask(vae.model, mask=kept), poutine.mask(vae.guide, mask=kept)
    expected = -reference.log_marginal(x[kept]).sum().item()
    assert bound(5).loss(model, guide, x) == pytest.approx(expected, abs=1e-10)
    rows = Conjugate(7)
    rows.model, rows.guide = (
        poutine.mask(rows.model, mask=kept),
        poutine.mask(rows.guide, mask=kept),
    )
    for gradient in rows.gradients(bound(5)):
        assert torch.equal(gradient != 0, kept)


@float64
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_row_of_which_nothing_is_observed_has_the_bound_0_where_the_guide_is_the_prior(bound):
    def model(kept):
        with pyro.plate("rows", 7):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with poutine.mask(mask=kept):
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(7))

    def guide(kept):
        with pyro.plate("rows", 7):
            pyro.sample("z", dist.Normal(torch.zeros(7), 1.0))

    torch.manual_seed(1)
    z = torch.randn(5, 7)
    kept = torch.arange(7) % 3 > 0
    bounds = log_mean_exp(dist.Normal(z, 1.0).log_prob(torch.ones(7)))
    torch.manual_seed(1)
    assert bound(5).loss(model, guide, kept) == pytest.approx(-bounds[kept].sum().item(), rel=1e-12)
    assert bound(5).loss(model, guide, torch.zeros(7, dtype=torch.bool)) == 0


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_vae_in_double_precision_has_its_loss_in_double_precision(bound):
    vae = binary_vae().double()
    loss, gradients = value_and_gradients(
        bound(3), vae, torch.ones(4, 1, 4, 4, dtype=torch.float64)
    )
    assert {tensor.dtype for tensor in (loss, *gradients)} == {torch.float64}


# How it is run


def steps(bound, **execution):
    """The losses of some steps, by stock Pyro when nothing is said of execution, and how they were run."""
    torch.manual_seed(0)
    vae = binary_vae()
    x, objective = vae.sample(24), bound(3)
    if execution:
        optimizer = torch.optim.Adam(vae.parameters(), lr=0.02)
        svi = SVI(vae.model, vae.guide, optimizer, objective, execution=Execution(**execution))
    else:
        svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.02}), objective)
    torch.manual_seed(1)
    losses = [
        float(svi.step(batch, kl_weight=weight, size=24))
        for weight in torch.linspace(0.3, 1, 4)
        for batch in x.split(8)
    ]
    return losses, getattr(svi, "how", "stock")


@pytest.mark.parametrize("bound", BOUNDS)
def test_losses_are_the_same_in_pyros_svi_and_in_ours_plain_or_traced(bound):
    (stock, _), (plain, _), (traced, how) = (
        steps(bound),
        steps(bound, trace=False),
        steps(bound, compile=False),
    )
    assert how == "traced"
    assert traced == plain
    assert plain == pytest.approx(stock, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("bound", BOUNDS)
def test_compiled_losses_are_the_same_up_to_rounding(bound):
    (compiled, how), (plain, _) = steps(bound, compile=True), steps(bound, trace=False)
    assert how == "compiled"
    assert compiled == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_loss_is_evaluated_as_it_is_stepped_on_and_moves_nothing(bound):
    vae = binary_vae()
    x = vae.sample(6)
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), bound(3))
    before = [parameter.clone() for parameter in vae.parameters()]
    torch.manual_seed(1)
    evaluated = svi.evaluate_loss(x)
    assert not evaluated.requires_grad
    torch.testing.assert_close(list(vae.parameters()), before, rtol=0, atol=0)
    torch.manual_seed(1)
    assert evaluated.item() == svi.step(x).item()


def test_latents_that_an_autoguide_draws_without_constraints_are_weighed_too():
    def model():
        with pyro.plate("rows", 7):
            scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0.0, scale), obs=torch.arange(7.0))

    with pyro.get_param_store().scope():
        guide = AutoNormal(model)
        guide()
        losses = []
        for objective in (Trace_ELBO(), ImportanceWeightedELBO(1)):
            torch.manual_seed(1)
            losses.append(objective.loss(model, guide))
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


# What is refused


def sites(*names, plated=True, normal=dist.Normal):
    """A program that draws latents of these names in three rows, or outside of them, and then observes x."""

    def program(observes=True):
        rows = pyro.plate("rows", 3)
        for name in names:
            if plated:
                with rows:
                    pyro.sample(name, normal(torch.zeros(3), 1.0))
            else:
                pyro.sample(name, normal(torch.tensor(0.0), 1.0))
        if observes:
            with rows:
                pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.ones(3))

    return program


def guide_sites(*names, **settings):
    return partial(sites(*names, **settings), observes=False)


REFUSALS = {
    "must have all sample sites in one row plate, got 'z' in no plate": (
        BOUNDS,
        sites("z", plated=False),
        guide_sites("z", plated=False),
    ),
    "'guide' must draw 'z' by a distribution with rsample for \\w+ELBO, got NonreparameterizedNormal": (
        BOUNDS,
        sites("z"),
        guide_sites("z", normal=NonreparameterizedNormal),
    ),
    "'guide' must draw its latents at one site for this objective, got z, w": (
        PATHWISE,
        sites("z", "w"),
        guide_sites("z", "w"),
    ),
    "'model' must have all latent sites of the guide, but has no 'w'": (
        BOUNDS,
        sites("z"),
        guide_sites("z", "w"),
    ),
    "'guide' must have all latent sites of the model, but has no 'w'": (
        BOUNDS,
        sites("z", "w"),
        guide_sites("z"),
    ),
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_what_has_no_weights_by_row_is_refused_in_one_sentence(sentence):
    bounds, model, guide = REFUSALS[sentence]
    for bound in bounds:
        with pytest.raises(ValueError, match=sentence):
            bound(2).loss(model, guide)


def test_two_latent_sites_are_weighed_together():
    model, guide = sites("z", "w"), guide_sites("z", "w")
    expected = -3 * dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0)).item()
    assert ImportanceWeightedELBO(5).loss(model, guide) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("num_particles", [0, -1, 2.5])
def test_the_number_of_particles_must_be_a_positive_whole_number(num_particles):
    for bound in BOUNDS:
        with pytest.raises(ValueError, match="'num_particles' .*must be a whole number.*, got"):
            bound(num_particles)


@pytest.mark.parametrize(
    "make",
    [ImportanceWeightedELBO, StickingTheLandingELBO, DoublyReparameterizedELBO],
    ids=lambda make: make.__name__,
)
def test_all_draws_are_one_pass_of_each_network(make):
    vae, calls = binary_vae(), []
    for part in (vae.likelihood, vae.posterior):
        part.network.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    x = vae.sample(4)
    calls.clear()
    make(num_particles=50).differentiable_loss(vae.model, vae.guide, x).backward()
    assert sorted(calls) == [4, 200]
