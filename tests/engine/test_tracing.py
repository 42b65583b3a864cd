import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae.engine import NotTraceableError, trace

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def outcome(run, *inputs):
    """What is returned under one random state, and the random number that follows."""
    torch.manual_seed(1)
    return *run(*inputs), torch.randn(())


def assert_same(function, graph, *inputs):
    torch.testing.assert_close(outcome(graph, *inputs), outcome(function, *inputs), rtol=0, atol=0)


def gradient_of(loss):
    def function(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(loss(x), x)

    return function


class Doubled(torch.autograd.Function):
    """The identity, with a gradient of its own."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def with_hook(x):
    y = x.exp()
    y.register_hook(lambda gradient: 3 * gradient)
    return y.sum()


def partly_without_gradient(x):
    with torch.no_grad():
        weight = x.exp()
    return (weight * x).sum()


DIFFERENTIATED = {
    "no_grad": partly_without_gradient,
    "detach": lambda x: (x.detach() * x).sum(),
    "a custom autograd function": lambda x: (Doubled.apply(x) ** 2).sum(),
    "a hook": with_hook,
    "the draw of a Gamma": lambda x: dist.Gamma(x.exp(), 2.0).rsample().log().sum(),
    "the draw of a Beta": lambda x: dist.Beta(x.exp(), 2.0).rsample().log().sum(),
    "the draw of a Dirichlet": lambda x: dist.Dirichlet(x.exp()).rsample().log().sum(),
    "a Cholesky factor": lambda x: (
        torch.linalg.cholesky(x.T @ x + torch.eye(3)).log_softmax(0).sum()
    ),
}


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradients_are_those_of_the_function_on_other_data_too(name):
    function = gradient_of(DIFFERENTIATED[name])
    graph = trace(function, [X])
    for x in (X, X + 0.5):
        assert_same(function, graph, x)


def draw_and_use_one(x):
    torch.randn(3)  # nobody uses it, and yet the numbers after it depend on it
    unused = torch.bernoulli(torch.full((2,), 0.5)) + x.sum()
    assert unused.shape == (2,)
    return (x + torch.randn(4, 3) + torch.randperm(3),)


def test_unused_draws_are_drawn_all_the_same():
    assert_same(draw_and_use_one, trace(draw_and_use_one, [X]), X)


def test_what_nobody_uses_and_what_changes_nothing_is_left_out():
    graph = trace(lambda x: (x.sin(), x.cos().view(4, 3).detach().expand(4, 3))[:1], [X])
    assert [node.name for node in graph.graph.nodes if node.op == "call_function"] == ["sin"]


COUNTER = torch.zeros(3)


def in_place_on_a_tensor_from_outside(x):
    return ((COUNTER.add_(1) * 2 + x.sum()) * 3,)


MEMORY = {
    "a chain": (lambda x: ((x.exp() + 1) * 2 - x,), 3),
    "a result that is returned as well": (lambda x: (y := x.exp(), y + 1), 0),
    "a result of which a view is used later": (lambda x: ((y := x.exp()).view(-1), y.neg()), 0),
    "a result of another shape": (lambda x: (x.sum(0).exp() + x,), 0),
    "a result of another dtype": (lambda x: (x.exp() + x.double(),), 0),
    "the inputs themselves": (lambda x: (x * 2,), 0),
    "a tensor from outside": (in_place_on_a_tensor_from_outside, 2),
}


@pytest.mark.parametrize("name", MEMORY)
def test_memory_is_used_again_only_where_nobody_can_tell(name):
    function, num_reused = MEMORY[name]
    graph = trace(function, [X])
    before, after = (
        sum("_." in str(node.target) for node in g.graph.nodes)
        for g in (make_fx(function)(X), graph)
    )
    assert after - before == num_reused
    for x in (X, X + 1):
        before = x.clone()
        COUNTER.zero_()
        expected = [result.clone() for result in function(x)]
        COUNTER.zero_()
        torch.testing.assert_close(list(graph(x)), expected, rtol=0, atol=0)
        assert torch.equal(x, before)
        assert torch.equal(COUNTER, torch.ones(3) if "outside" in name else torch.zeros(3))


def test_tensors_that_are_changed_in_place_change_in_each_replay():
    norm = nn.BatchNorm1d(3)

    def function(x):
        return (norm(x),)

    graph = trace(function, [X])
    norm.reset_running_stats()
    graph(X)
    assert norm.num_batches_tracked == 1
    torch.testing.assert_close(norm.running_mean, 0.1 * X.mean(0))


def test_a_parameter_is_read_when_the_graph_is_replayed():
    scale = nn.Parameter(torch.tensor(2.0))
    graph = trace(lambda x, _: (scale * x,), [X, scale])
    torch.testing.assert_close(graph(X, torch.tensor(3.0)), (3 * X,))


UNTRACEABLE = {
    "depends on the value of a tensor": lambda x: (x if x.sum() > 0 else -x,),
    r"depends on the value of a tensor \(test_tracing.py, line \d+\)": lambda x: (
        x * x.sum().item(),
    ),
    "depends on the value of a tensor.": lambda x: (x if torch.randn(()) > 0 else -x,),
    r"with \.numpy\(\)": lambda x: (x * float(x.numpy().sum()),),
    r"with \.__array__\(\)": lambda x: (x * float(np.asarray(x).sum()),),
    r"with \.tolist\(\)": lambda x: (x * x.tolist()[0][0],),
    "aten.index.Tensor has a shape that depends on values": lambda x: (x[x > 0],),
    "aten.nonzero.default has a shape that depends on values": lambda x: (x.nonzero(),),
    r"tracing fails with RuntimeError: .* \(test_tracing.py, line \d+\)": lambda x: (x @ x,),
}


@pytest.mark.parametrize("reason", UNTRACEABLE)
def test_what_a_graph_would_get_wrong_is_refused_with_the_reason(reason):
    with pytest.raises(NotTraceableError, match=reason):
        trace(UNTRACEABLE[reason], [X])


def test_choosing_rows_by_number_is_no_reason():
    assert_same(function := lambda x: (x[torch.tensor([2, 0])],), trace(function, [X]), X)


def test_a_distribution_made_earlier_checks_nothing_while_it_is_traced():
    prior = dist.Normal(0.0, 1.0, validate_args=True)
    assert_same(function := lambda x: (prior.log_prob(x),), trace(function, [X]), X)
    with pytest.raises(ValueError, match="outside the support|to satisfy|within the support"):
        prior.log_prob(torch.tensor(math.nan))
    assert pyro.distributions.is_validation_enabled()
