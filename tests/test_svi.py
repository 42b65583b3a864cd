import pyro
import pyro.distributions as dist
import pytest
import torch
from models import binary_vae
from pyro.infer import JitTrace_ELBO, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyro_vae import SVI

OBJECTIVES = [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO]


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.02)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_value_and_gradient_are_those_of_pyros_own_svi(objective):
    vae = binary_vae()
    x = vae.sample(6)
    svi = SVI(vae.model, vae.guide, torch.optim.SGD(vae.parameters(), lr=0.0), objective())
    torch.manual_seed(1)
    ours = svi.backward(x).item()
    gradients = [parameter.grad.clone() for parameter in vae.parameters()]
    vae.zero_grad()
    torch.manual_seed(1)
    stock = objective().loss_and_grads(vae.model, vae.guide, x)
    assert ours == pytest.approx(stock, rel=1e-6)
    torch.testing.assert_close(gradients, [parameter.grad for parameter in vae.parameters()])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_with_rows_the_gradient_is_that_of_the_mean_and_the_loss_still_the_sum(objective):
    vae = binary_vae()
    x = vae.sample(6)
    losses, gradients = [], []
    for rows in (None, lambda x: len(x)):
        torch.manual_seed(1)
        losses.append(SVI(vae.model, vae.guide, adam(vae.parameters()), objective(), rows=rows).backward(x).item())
        gradients.append([parameter.grad.clone() for parameter in vae.parameters()])
    assert losses[0] == losses[1]
    torch.testing.assert_close([gradient / 6 for gradient in gradients[0]], gradients[1])


def test_evaluate_loss_takes_no_step_and_agrees_with_step():
    vae = binary_vae()
    x = vae.sample(6)
    svi = SVI(vae.model, vae.guide, adam(vae.parameters()), Trace_ELBO())
    before = [parameter.clone() for parameter in vae.parameters()]
    torch.manual_seed(1)
    evaluated = svi.evaluate_loss(x)
    torch.testing.assert_close(list(vae.parameters()), before)
    torch.manual_seed(1)
    stepped = svi.step(x)
    assert not stepped.requires_grad
    torch.testing.assert_close(evaluated.item(), stepped.item())
    assert not any(torch.equal(*pair) for pair in zip(vae.parameters(), before, strict=True))


@pytest.mark.parametrize("stock", [True, False])
def test_two_vaes_train_alternately_in_one_process(stock):
    vaes = [binary_vae(), binary_vae()]
    data = [torch.zeros(20, 1, 4, 4), torch.ones(20, 1, 4, 4)]
    svis = [
        pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.02}), TraceMeanField_ELBO())
        if stock
        else SVI(vae.model, vae.guide, adam(vae.parameters()), TraceMeanField_ELBO())
        for vae in vaes
    ]
    for _ in range(150):
        for svi, x in zip(svis, data, strict=True):
            svi.step(x)
    for vae, x in zip(vaes, data, strict=True):
        assert vae.elbo(x).mean() > -2  # it starts near -16 ln 2 = -11
        assert vae.elbo(1 - x).mean() < -20


def test_the_store_and_the_random_state_of_validation_are_left_as_found():
    vae = binary_vae()
    x = vae.sample(4)
    vae.guide(x)  # the user's own call shows parameters, and they stay
    before = set(pyro.get_param_store().keys())
    SVI(vae.model, vae.guide, adam(vae.parameters()), Trace_ELBO()).step(x)
    assert set(pyro.get_param_store().keys()) == before


def test_a_function_makes_the_optimiser_once_an_autoguide_has_made_its_parameters():
    data = torch.randn(100) + 3

    def model():
        loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", 100):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=data)

    with pyro.get_param_store().scope():
        guide = AutoNormal(model)
        svi = SVI(model, guide, lambda parameters: torch.optim.Adam(parameters, lr=0.05), Trace_ELBO())
        with pytest.raises(ValueError, match="'optim' is a function"):
            _ = svi.optim
        for _ in range(400):
            svi.step()
        assert len(svi.optim.param_groups[0]["params"]) == 2
        assert guide.median()["loc"].item() == pytest.approx(data.mean().item(), abs=0.15)


def test_the_users_own_params_are_trained_and_stay_in_the_store():
    def model():
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=torch.tensor(2.0))

    with pyro.get_param_store().scope():
        svi = SVI(model, lambda: None, lambda parameters: torch.optim.Adam(parameters, lr=0.1), Trace_ELBO())
        for _ in range(200):
            svi.step()
        assert pyro.param("loc").item() == pytest.approx(2.0, abs=0.05)


def test_a_plain_module_that_pyro_was_never_shown_is_trained():
    layer = nn.Linear(1, 1)

    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(layer(torch.ones(1)), 1.0), obs=x)

    svi = SVI(model, lambda x: None, torch.optim.SGD(layer.parameters(), lr=0.01), Trace_ELBO())
    before = layer.bias.clone()
    svi.step(torch.full((5,), 2.0))
    assert not torch.equal(layer.bias, before)


def test_only_what_the_optimiser_holds_is_moved_or_given_a_gradient():
    vae = binary_vae()
    x = vae.sample(4)
    before = [parameter.clone() for parameter in vae.posterior.parameters()]
    SVI(vae.model, vae.guide, adam(vae.likelihood.parameters()), Trace_ELBO()).step(x)
    torch.testing.assert_close(list(vae.posterior.parameters()), before)
    assert all(parameter.grad is None for parameter in vae.posterior.parameters())


def test_an_optimiser_of_pyro_is_refused_with_what_to_pass():
    vae = binary_vae()
    with pytest.raises(ValueError, match=r"torch.optim.Adam\(vae.parameters\(\)\).* got PyroOptim of pyro.optim"):
        SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    with pytest.raises(ValueError, match=r"or a function from parameters to one, got 0.001"):
        SVI(vae.model, vae.guide, 1e-3, Trace_ELBO())
    with pytest.raises(ValueError, match="got JitTrace_ELBO: use it without Jit"):
        SVI(vae.model, vae.guide, adam(vae.parameters()), JitTrace_ELBO())
    with pytest.raises(ValueError, match="must take one gradient a step, got LBFGS"):
        SVI(vae.model, vae.guide, torch.optim.LBFGS(vae.parameters()), Trace_ELBO())
    with pytest.raises(ValueError, match=r"'loss' must be a pyro.infer.ELBO"):
        SVI(vae.model, vae.guide, adam(vae.parameters()), lambda: 0.0)


def test_an_optimiser_of_other_parameters_is_refused():
    vae = binary_vae()
    svi = SVI(vae.model, vae.guide, adam(binary_vae().parameters()), Trace_ELBO())
    with pytest.raises(ValueError, match="must hold trainable parameters that the loss depends on"):
        svi.step(vae.sample(3))


def test_an_objective_with_gradients_of_its_own_trains_too():
    vae = binary_vae()
    svi = SVI(vae.model, vae.guide, adam(vae.parameters()), RenyiELBO(alpha=0, num_particles=2))
    before = [parameter.clone() for parameter in vae.parameters()]
    svi.step(vae.sample(3))
    assert not any(torch.equal(*pair) for pair in zip(vae.parameters(), before, strict=True))
