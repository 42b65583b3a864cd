from functools import partial, wraps

import pytest
import torch
from torch import nn

from pyro_vae.engine.dependencies import Dependencies

BETA, DATA, UNUSED = 1.0, torch.zeros(3), 1.0


def objective(x):
    return BETA * (x - DATA).sum()


def through_a_helper(x):
    return objective(x)


def inside(x):
    return [BETA * value for value in x]


def closed_over(beta):
    def function(x):
        return beta * x

    def change(value):
        nonlocal beta
        beta = value

    return function, change


def decorated(function):
    @wraps(function)
    def wrapper(x):
        return function(x)

    return wrapper


class Method:
    def __init__(self):
        self.beta, self.layer = 1.0, nn.Linear(2, 2)

    def model(self, x):
        return self.beta * x


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.beta = 1.0
        self.layer = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def forward(self, x):
        return self.beta * self.layer(x)


def dependencies(*functions):
    return Dependencies(functions, tuple)


@pytest.mark.parametrize(
    "function", [objective, through_a_helper, inside, decorated(objective), partial(objective)]
)
def test_a_global_number_that_changes_is_noticed(function, monkeypatch):
    seen = dependencies(function)
    before = seen.signature()
    monkeypatch.setitem(globals(), "UNUSED", 2.0)
    assert seen.signature() == before
    monkeypatch.setitem(globals(), "BETA", 2.0)
    assert seen.signature() != before


def test_a_global_tensor_is_told_by_which_it_is_and_not_by_what_it_holds(monkeypatch):
    seen = dependencies(objective)
    before = seen.signature()
    DATA.add_(1)
    assert seen.signature() == before
    monkeypatch.setitem(globals(), "DATA", DATA.clone())
    assert seen.signature() != before


def test_a_closed_over_number_that_changes_is_noticed():
    function, change = closed_over(1.0)
    seen = dependencies(function)
    before = seen.signature()
    change(2.0)
    assert seen.signature() != before


def test_an_attribute_of_the_object_that_a_method_belongs_to_is_noticed():
    owner = Method()
    seen = dependencies(owner.model)
    before = seen.signature()
    owner.beta = 2.0
    assert seen.signature() != before


MODULE_CHANGES = {
    "an attribute": lambda module: setattr(module, "beta", 2.0),
    "a mode": lambda module: module.layer[1].eval(),
    "a frozen parameter": lambda module: module.layer[0].bias.requires_grad_(False),
    "a replaced parameter": lambda module: setattr(
        module.layer[0], "bias", nn.Parameter(torch.zeros(2))
    ),
    "a submodule": lambda module: module.layer.__setitem__(1, nn.Identity()),
    "a method of one object": lambda module: setattr(module.layer[0], "forward", torch.relu),
    "a hook on a parameter": lambda module: module.layer[0].weight.register_hook(torch.neg),
    "a dtype": lambda module: module.double(),
}


@pytest.mark.parametrize("named_before", [True, False])
@pytest.mark.parametrize("change", MODULE_CHANGES)
def test_what_changes_in_a_module_is_noticed(change, named_before):
    module = Weighted()
    seen = dependencies(*([module] if named_before else []))
    with seen.watching():
        module(torch.ones(3, 2))
    before = seen.signature()
    MODULE_CHANGES[change](module)
    assert seen.signature() != before


def test_values_of_parameters_and_buffers_may_change():
    module = Weighted()
    seen = dependencies(module)
    before = seen.signature()
    module(torch.randn(3, 2))
    nn.init.zeros_(module.layer[0].weight)
    assert seen.signature() == before
    assert len(seen.state()) == 4 + 3
    assert len(seen.buffers()) == 3


def test_a_hook_is_noticed_on_whichever_module():
    module = Weighted()
    seen = dependencies(module)
    assert seen.module_with_hooks() is None
    handle = module.layer[1].register_forward_hook(lambda *_: None)
    assert seen.module_with_hooks() is module.layer[1]
    handle.remove()
    assert seen.module_with_hooks() is None
