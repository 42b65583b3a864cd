"""Names of a VAE in Pyro's param store, and values there that no VAE uses."""

import copy
import io
import pickle
import warnings

import pyro
import pytest
import torch
from models import binary_vae
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_vae import SVI, VAE, BernoulliLikelihood, DiagNormalPosterior, StandardNormalPrior
from pyro_vae.support import store

NOT_USED = r"param store was given values under names of a VAE, such as 'pyro_vae.VAE.*save torch.save\(vae.state_dict\(\)"


def stock(vae):
    return pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())


def ours(vae):
    return SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=3e-2), Trace_ELBO())


def of_another_process():
    """The state of a store there, where the VAE had another name."""
    with pyro.get_param_store().scope():
        vae = binary_vae()
        vae.model(vae.sample(2))
        state = pickle.loads(pickle.dumps(pyro.get_param_store().get_state()))
    for part in state.values():
        for name in list(part):
            prefix, kind, _, rest = name.split(".", 3)
            part[f"{prefix}.{kind}.0123456789abcdef.{rest}"] = part.pop(name)
    return state


@pytest.mark.parametrize("make", [stock, ours])
def test_a_store_of_another_process_is_named_once(make, monkeypatch):
    monkeypatch.setattr(store, "_mentioned", set())
    with pyro.get_param_store().scope():
        vae = binary_vae()
        pyro.get_param_store().set_state(of_another_process())
        svi, x = make(vae), vae.sample(4)
        with pytest.warns(UserWarning, match=NOT_USED) as caught:
            svi.step(x)
        svi.step(x)
        binary_vae().model(x)
        assert len(caught) == 1


def test_a_store_saved_in_this_process_is_not_used_either_and_the_vae_is_trained():
    """Even under the same names: the parameters are those of the modules."""
    with pyro.get_param_store().scope():
        vae = binary_vae()
        x = vae.sample(6)
        stock(vae).step(x)
        state = pickle.loads(pickle.dumps(pyro.get_param_store().get_state()))
        pyro.clear_param_store()
        pyro.get_param_store().set_state(state)
        before = [parameter.clone() for parameter in vae.parameters()]
        with pytest.warns(UserWarning, match=NOT_USED) as caught:
            stock(vae).step(x)
        stock(vae).step(x)
        assert len(caught) == 1
        assert not any(torch.equal(*pair) for pair in zip(vae.parameters(), before, strict=True))


def test_a_store_of_a_vae_that_is_gone_is_named():
    with pyro.get_param_store().scope():
        first = binary_vae()
        first.model(first.sample(2))
        state = pyro.get_param_store().get_state()
        del first
        pyro.get_param_store().set_state(state)
        vae = binary_vae()
        with pytest.warns(UserWarning, match=NOT_USED):
            vae.model(vae.sample(2))


def deleted(vae, x):
    other = binary_vae()
    other.model(x)
    del other
    stock(vae).step(x)


def copied(vae, x):
    for other in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        stock(other).step(x)
        stock(vae).step(x)


def reloaded(vae, x):
    file = io.BytesIO()
    torch.save(vae, file)
    file.seek(0)
    stock(torch.load(file, weights_only=False)).step(x)


def replaced(vae, x):
    layer = vae.likelihood.network.layers[0]
    layer.bias = nn.Parameter(layer.bias.detach() + 1)
    stock(vae).step(x)


def moved(vae, x):
    stock(vae.double()).step(x.double())
    vae.float()


def scoped(vae, x):
    state = pyro.get_param_store().get_state()
    with pyro.get_param_store().scope():
        stock(vae).step(x)
    with pyro.get_param_store().scope(state):
        stock(vae).step(x)


def cleared(vae, x):
    pyro.clear_param_store()
    stock(vae).step(x)


@pytest.mark.parametrize("use", [deleted, copied, reloaded, replaced, moved, scoped, cleared])
def test_ordinary_use_needs_no_word(use):
    with pyro.get_param_store().scope(), warnings.catch_warnings():
        warnings.simplefilter("error")
        vae = binary_vae()
        x = vae.sample(4)
        stock(vae).step(x)
        use(vae, x)
        before = [parameter.clone() for parameter in vae.parameters()]
        stock(vae).step(x)
        ours(vae).step(x)
        assert not any(torch.equal(*pair) for pair in zip(vae.parameters(), before, strict=True))


@pytest.mark.parametrize("make", [stock, ours])
def test_parameters_that_are_not_contiguous_are_trained_themselves(make):
    encoder = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(27, 4))
    decoder = nn.Linear(2, 32)
    vae = VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(decoder, (2, 4, 4)),
        DiagNormalPosterior(encoder, (2, 4, 4), 2),
    ).to(memory_format=torch.channels_last)
    assert not encoder[0].weight.is_contiguous()
    with pyro.get_param_store().scope():
        before = encoder[0].weight.clone()
        svi = make(vae)
        for _ in range(3):
            svi.step(vae.sample(4))
        assert not torch.equal(encoder[0].weight, before)
