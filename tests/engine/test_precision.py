import pytest
import torch
from torch import nn

from pyro_vae.engine import trace
from pyro_vae.engine.precision import with_bfloat16_products


def image(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def loss_and_gradients(network):
    def function(x, *parameters):
        with torch.enable_grad():
            loss = network(x).square().mean()
            return loss.detach(), *torch.autograd.grad(loss, parameters)

    return function


class Batched(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(image(5, 3, 2)), nn.Parameter(image(5, 2, 2))

    def forward(self, x):
        return torch.baddbmm(self.bias, x, self.weight).tanh() @ self.weight.mT


NETWORKS = {
    "linear": lambda: (nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), image(5, 6)),
    "without bias": lambda: (
        nn.Sequential(nn.Linear(6, 8, bias=False), nn.Linear(8, 3)),
        image(5, 6),
    ),
    "batched": lambda: (Batched(), image(5, 2, 3)),
    "convolution": lambda: (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.ConvTranspose2d(4, 2, 3)),
        image(5, 2, 6, 6),
    ),
}


@pytest.mark.usefixtures("every_product_counts")
@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_gradients_agree_to_eight_bits_and_are_float32(name):
    network, x = NETWORKS[name]()
    function, inputs = loss_and_gradients(network), [x, *network.parameters()]
    graph = trace(function, inputs)
    rounded = with_bfloat16_products(graph)
    with torch.no_grad():
        for exact, approximate in zip(graph(*inputs), rounded(*inputs), strict=True):
            assert approximate.dtype == torch.float32
            assert 0 < (approximate - exact).abs().max() < 0.03 * exact.abs().max()


def products(graph):
    return [
        node
        for node in graph.graph.nodes
        if str(node.target) in ("aten.mm.default", "aten.convolution.default")
    ]


@pytest.mark.usefixtures("every_product_counts")
def test_every_product_has_bfloat16_factors_and_the_original_keeps_its_own():
    network, x = NETWORKS["linear"]()
    inputs = [x, *network.parameters()]
    graph = trace(loss_and_gradients(network), inputs)
    rounded = with_bfloat16_products(graph)
    seen = []

    class Watch(torch.fx.Interpreter):
        def call_function(self, target, args, kwargs):
            if target is torch.ops.aten.mm.default:
                seen.append([factor.dtype for factor in args])
            return super().call_function(target, args, kwargs)

    Watch(rounded).run(*inputs)
    assert (
        seen == [[torch.bfloat16] * 2] * 5
    )  # two layers forward, two weights and one input backward
    assert all(
        str(node.args[0].target) != "prims.convert_element_type.default" for node in products(graph)
    )


@pytest.mark.usefixtures("every_product_counts")
def test_double_precision_is_left_alone():
    network, x = NETWORKS["linear"]()
    inputs = [x.double(), *network.double().parameters()]
    graph = trace(loss_and_gradients(network), inputs)
    torch.testing.assert_close(
        with_bfloat16_products(graph)(*inputs), graph(*inputs), rtol=0, atol=0
    )


def test_no_global_setting_of_torch_is_touched():
    network, x = NETWORKS["linear"]()
    before = torch.get_float32_matmul_precision()
    with_bfloat16_products(trace(loss_and_gradients(network), [x, *network.parameters()]))
    assert torch.get_float32_matmul_precision() == before


def test_small_products_stay_as_they_are_and_large_ones_do_not():
    weight, x = torch.randn(200, 100), torch.randn(250, 200)
    for rows, error in ((100, 0.0), (250, 0.01)):
        graph = trace(lambda x, weight: (x @ weight,), [x[:rows], weight])
        difference = with_bfloat16_products(graph)(x[:rows], weight)[0] - x[:rows] @ weight
        assert (difference.abs().max() > error) == (rows == 250)
