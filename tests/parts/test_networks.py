"""Networks: every size of image, rows apart from their batch, what gates, convolutions and blocks are, and refusals."""

import copy
import pickle
import re

import pyro
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import nn

from pyro_vae import (
    MLP,
    SVI,
    VAE,
    BernoulliLikelihood,
    ConvDecoder,
    ConvEncoder,
    DiagNormalPosterior,
    Execution,
    GatedMLP,
    NetworkScale,
    NormalLikelihood,
    StandardNormalPrior,
)
from pyro_vae.engine import trace
from pyro_vae.parts.networks import _ResidualBlock

IMAGE = (2, 10, 14)  # halved to 5 × 7, and to 3 × 4
SMALL = {"channels": [4, 6], "hidden": 5}
NETWORKS = {
    "mlp": (lambda size: MLP(3, [4], (2, 3), context_dim=size), (3,)),
    "gated": (lambda size: GatedMLP(3, [4, 5], (2, 3), context_dim=size), (3,)),
    "encoder": (lambda size: ConvEncoder(IMAGE, (2, 3), **SMALL, context_dim=size), IMAGE),
    "residual encoder": (
        lambda size: ConvEncoder(IMAGE, (2, 3), **SMALL, num_blocks=1, context_dim=size),
        IMAGE,
    ),
    "decoder": (lambda size: ConvDecoder(3, (2, *IMAGE), **SMALL, context_dim=size), (3,)),
    "residual decoder": (
        lambda size: ConvDecoder(3, (2, *IMAGE), **SMALL, num_blocks=1, context_dim=size),
        (3,),
    ),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    """What makes a network from the size of its context, and the shape of its rows."""
    return NETWORKS[request.param]


@pytest.fixture
def network(case):
    return case[0](0)


@pytest.fixture
def rows(case):
    return torch.randn(4, *case[1])


# What all networks do


def test_a_row_has_the_same_outputs_alone_and_in_a_batch(network, rows):
    network, rows = network.double(), rows.double()
    alone = torch.cat([network(row.unsqueeze(0)) for row in rows])
    torch.testing.assert_close(network(rows), alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(network(rows.flip(0)), alone.flip(0), rtol=1e-12, atol=1e-12)


def test_every_parameter_gets_a_gradient(network, rows):
    network(rows).square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in network.parameters()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_outputs_have_the_shape_and_the_dtype_of_the_network(network, rows, dtype):
    outputs = network.to(dtype)(rows.to(dtype))
    assert (outputs.shape, outputs.dtype) == ((4, *network.out_shape), dtype)


def test_a_network_keeps_no_statistics(network):
    assert not list(network.buffers())


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))]
)
def test_a_copy_gives_the_same(network, rows, copied):
    assert torch.equal(copied(network)(rows), network(rows))


def test_a_network_is_replayed_bit_for_bit(network, rows):
    with torch.no_grad():
        graph = trace(lambda inputs: (network(inputs),), [rows])
        (received,) = graph(2 * rows)
        assert torch.equal(received, network(2 * rows))


def test_the_context_changes_every_row(case, rows):
    network, y = case[0](2), torch.randn(4, 2)
    assert network.context_dim == 2
    assert torch.equal(network(rows, y.double()), network(rows, y))
    changed = (network(rows, y) - network(rows, -y)).flatten(1).abs().amax(1)
    assert (changed > 1e-4).all()
    first = torch.cat(
        [network(row[None], context[None]) for row, context in zip(rows, y, strict=True)]
    )
    torch.testing.assert_close(network(rows, y), first)


@pytest.mark.parametrize(("context_dim", "given"), [(2, 0), (0, 2), (2, 3)])
def test_another_context_is_refused(case, rows, context_dim, given):
    network = case[0](context_dim)
    sentence = f"{type(network).__name__} accepts .* numbers a row and a context 'y' of {context_dim}, got .* and {given}"
    with pytest.raises(ValueError, match=sentence):
        network(rows, torch.randn(4, given) if given else None)


def test_other_rows_are_refused(case, network):
    accepted, received = case[1], (*case[1][:-1], case[1][-1] + 1)
    sizes = [str(shape if len(shape) == 3 else shape[0]) for shape in (accepted, received)]
    sentence = "{} accepts {} numbers a row and a context 'y' of 0, got {} and 0.".format(
        type(network).__name__, *sizes
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        network(torch.zeros(4, *received))


def test_an_image_on_its_side_is_no_row_of_an_encoder():
    encoder = ConvEncoder((1, 8, 12), 2, channels=[4])
    with pytest.raises(
        ValueError, match=r"accepts \(1, 8, 12\) numbers a row .*, got \(1, 12, 8\) and 0"
    ):
        encoder(torch.zeros(3, 1, 12, 8))


@pytest.mark.parametrize("name", [name for name in NETWORKS if "encoder" not in name])
def test_the_output_bias_has_a_number_for_each_output(name):
    make, row = NETWORKS[name]
    network, rows = make(0), torch.randn(4, *row)
    before, step = network(rows), torch.randn(network.out_shape)
    assert network.output_bias.numel() == network.out_shape.numel()
    with torch.no_grad():
        network.output_bias.add_(step.reshape(network.output_bias.shape))
    torch.testing.assert_close(network(rows), before + step)


# Multilayer perceptrons


def test_the_weights_of_an_mlp_have_the_names_and_the_draws_that_they_always_had():
    torch.manual_seed(3)
    mlp = MLP(3, [5, 4], (2, 2))
    torch.manual_seed(3)
    plain = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4))
    assert list(mlp.state_dict()) == [f"layers.{name}" for name in plain.state_dict()]
    assert all(
        torch.equal(*pair) for pair in zip(mlp.parameters(), plain.parameters(), strict=True)
    )


def test_a_gated_layer_is_the_formula():
    network, x = GatedMLP(3, [4, 2], 5).double(), torch.randn(6, 3, dtype=torch.float64)
    (first, bias), (second, other), (last, output_bias) = (
        (layer.weight, layer.bias) for layer in network.layers if isinstance(layer, nn.Linear)
    )
    h = (x @ first[:4].T + bias[:4]) * torch.sigmoid(x @ first[4:].T + bias[4:])
    h = (h @ second[:2].T + other[:2]) * torch.sigmoid(h @ second[2:].T + other[2:])
    torch.testing.assert_close(network(x), h @ last.T + output_bias, rtol=1e-12, atol=1e-12)


def test_a_gated_mlp_without_hidden_layers_is_affine():
    network, (a, b) = GatedMLP(3, [], 2), torch.randn(2, 1, 3)
    torch.testing.assert_close(network(a) + network(b), network(a + b) + network(torch.zeros(1, 3)))


# Images


def sizes_and_stages():
    """Every even height from 8 to 64 beside every even width, some odd ones, and each number of stages that they allow."""
    sizes = [*((size, 72 - size) for size in range(8, 65, 2)), (28, 28), (9, 15), (27, 11), (2, 2)]
    return [
        (size, stages) for size in sizes for stages in range(1, (min(size) - 1).bit_length() + 1)
    ]


@pytest.mark.parametrize(("size", "stages"), sizes_and_stages(), ids=str)
def test_an_image_of_any_size_is_halved_and_doubled_back(size, stages):
    encoder = ConvEncoder((1, *size), (2, 3), channels=[2] * stages, hidden=4)
    decoder = ConvDecoder(3, (1, *size), channels=[2] * stages, hidden=4)
    halved = size
    for _ in range(stages):
        halved = tuple((length + 1) // 2 for length in halved)
    maps = encoder.stages(torch.zeros(1, 1, *size))
    assert maps.shape == (1, 2, *halved)
    assert decoder.dense.out_shape == (2, *halved)
    assert encoder(torch.zeros(2, 1, *size)).shape == (2, 2, 3)
    assert decoder(torch.zeros(2, 3)).shape == (2, 1, *size)


@pytest.mark.parametrize("leading", [(), (2,), (3, 5), (2, 1, 2)])
def test_leading_sizes_of_the_outputs_multiply_the_channels(leading):
    decoder = ConvDecoder(3, (*leading, *IMAGE), **SMALL)
    flat = ConvDecoder(3, (torch.Size(leading).numel() * IMAGE[0], *IMAGE[1:]), **SMALL)
    state = {
        name: value.reshape(flat.state_dict()[name].shape)
        for name, value in decoder.state_dict().items()
    }
    flat.load_state_dict(state)
    z = torch.randn(4, 3)
    assert decoder(z).shape == (4, *leading, *IMAGE)
    assert torch.equal(decoder(z), flat(z).reshape(4, *leading, *IMAGE))


@pytest.mark.parametrize("hidden", [7, [7, 5], []])
def test_the_dense_layers_of_a_convolutional_network_have_their_widths(hidden):
    widths = [hidden] if isinstance(hidden, int) else hidden
    for network in (
        ConvEncoder(IMAGE, 3, [4], hidden=hidden),
        ConvDecoder(3, IMAGE, [4], hidden=hidden),
    ):
        linear = [
            layer.out_features for layer in network.dense.layers if isinstance(layer, nn.Linear)
        ]
        assert linear[:-1] == widths


def test_a_shift_of_the_image_is_a_shift_of_the_maps():
    encoder = ConvEncoder((1, 48, 48), 2, channels=[8, 8]).double()
    images = torch.zeros(3, 1, 48, 48, dtype=torch.float64)
    patch = torch.randn(8, 8, dtype=torch.float64)
    for image, (down, right) in zip(images, [(16, 16), (20, 16), (16, 24)], strict=True):
        image[0, down : down + 8, right : right + 8] = patch
    maps = encoder.stages(images)[:, :, 1:, 1:]  # the border is padded, and stays where it is
    assert (maps[0] - maps[1]).abs().max() > 0.1
    torch.testing.assert_close(maps[0].roll(1, dims=1), maps[1])
    torch.testing.assert_close(maps[0].roll(2, dims=2), maps[2])


def test_a_shift_of_the_maps_is_a_shift_of_the_image():
    decoder = ConvDecoder(2, (1, 48, 48), channels=[8, 8]).double()
    maps = torch.zeros(3, 8, 12, 12, dtype=torch.float64)
    patch = torch.randn(8, 2, 2, dtype=torch.float64)
    for each, (down, right) in zip(maps, [(4, 4), (5, 4), (4, 6)], strict=True):
        each[:, down : down + 2, right : right + 2] = patch
    images = decoder.stages(maps)[
        :, :, 4:-4, 4:-4
    ]  # what is constant in the maps repeats every 4 pixels
    assert (images[0] - images[1]).abs().max() > 0.1
    torch.testing.assert_close(images[0].roll(4, dims=1), images[1])
    torch.testing.assert_close(images[0].roll(8, dims=2), images[2])


# Residual blocks


def residual_pair(kind, num_blocks):
    """A residual network, and the plain one with the same parameters outside the blocks."""
    make = {"encoder": lambda n: ConvEncoder(IMAGE, 3, **SMALL, num_blocks=n)}
    make["decoder"] = lambda n: ConvDecoder(3, IMAGE, **SMALL, num_blocks=n)
    residual, plain = make[kind](num_blocks), make[kind](0)
    inside = {id(p) for block in blocks(residual) for p in block.parameters()}
    outside = [parameter for parameter in residual.parameters() if id(parameter) not in inside]
    for parameter, value in zip(plain.parameters(), outside, strict=True):
        parameter.data.copy_(value.data)
    return residual, plain


def blocks(network):
    return [module for module in network.modules() if isinstance(module, _ResidualBlock)]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("num_blocks", [1, 3])
def test_blocks_whose_last_convolution_is_zero_leave_the_plain_network(kind, num_blocks):
    residual, plain = residual_pair(kind, num_blocks)
    inputs = torch.randn(4, *(IMAGE if kind == "encoder" else (3,)))
    assert len(blocks(residual)) == num_blocks * len(SMALL["channels"])
    assert not torch.allclose(residual(inputs), plain(inputs))
    for block in blocks(residual):
        nn.init.zeros_(block.layers[-1].weight)
        nn.init.zeros_(block.layers[-1].bias)
    assert torch.equal(residual(inputs), plain(inputs))


def test_a_block_adds_two_normalised_convolutions_to_its_inputs():
    block, h = _ResidualBlock(4, nn.SiLU).double(), torch.randn(3, 4, 5, 6, dtype=torch.float64)
    f = h
    for weight, bias in (
        (layer.weight, layer.bias) for layer in block.layers if isinstance(layer, nn.Conv2d)
    ):
        normal = (f - f.mean((1, 2, 3), keepdim=True)) / (
            f.var((1, 2, 3), correction=0, keepdim=True) + 1e-5
        ).sqrt()
        f = nn.functional.conv2d(normal * torch.sigmoid(normal), weight, bias, padding=1)
    torch.testing.assert_close(block(h), h + f)


@pytest.mark.parametrize("channels", [1, 2, 7, 8, 12, 17, 30, 64])
def test_no_group_has_less_than_eight_channels_where_there_are_as_many(channels):
    norms = [
        m for m in ConvEncoder((1, 8, 8), 2, [channels]).modules() if isinstance(m, nn.GroupNorm)
    ]
    assert [norm.num_channels for norm in norms] == [channels]
    assert channels // norms[0].num_groups >= min(8, channels)


# Refusals

REFUSED = {
    "no image": (
        lambda: ConvEncoder(784, 2),
        r"'in_shape' must be \(C, H, W\) with H and W from 2, got \(784,\)",
    ),
    "a batch of images": (
        lambda: ConvEncoder((2, 1, 8, 8), 2),
        r"'in_shape' must be \(C, H, W\) .* got \(2, 1, 8, 8\)",
    ),
    "no image to make": (
        lambda: ConvDecoder(2, (28, 28)),
        r"'out_shape' must be .* or \(\*, C, H, W\) .* got \(28, 28\)",
    ),
    "channels last": (
        lambda: ConvEncoder((32, 32, 3), 2),
        r"'in_shape' must have images of the shape \(C, H, W\), got \(32, 32, 3\), whose last axis looks like",
    ),
    "channels last to make": (
        lambda: ConvDecoder(2, (2, 20, 24, 4)),
        r"'out_shape' must have images of the shape \(C, H, W\), got \(20, 24, 4\)",
    ),
    "a line": (
        lambda: ConvDecoder(2, (1, 1, 9)),
        r"'out_shape' must be .* with H and W from 2, got \(1, 1, 9\)",
    ),
    "too many stages": (
        lambda: ConvEncoder((1, 8, 64), 2, channels=[4] * 4),
        "'channels' must hold 1 to 3 numbers, since an image of 8 × 64 can be halved 3 times, got 4",
    ),
    "too many stages back": (
        lambda: ConvDecoder(2, (1, 10, 9), [4] * 5),
        "'channels' must hold 1 to 4 .* got 5",
    ),
    "no stage": (
        lambda: ConvEncoder((1, 8, 8), 2, channels=[]),
        "'channels' must hold 1 to 3 numbers, .* got 0",
    ),
    "no channels": (
        lambda: ConvDecoder(2, (1, 8, 8), [0]),
        r"'channels' must hold positive whole numbers, got \[0\]",
    ),
    "negative blocks": (
        lambda: ConvDecoder(2, (1, 8, 8), [2], -1),
        "'num_blocks' must be a whole number .* 0, got -1",
    ),
    "no width": (
        lambda: ConvEncoder((1, 8, 8), 2, [2], hidden=0),
        "'hidden' must hold positive whole numbers, got 0",
    ),
    "no outputs": (
        lambda: MLP(3, [4]),
        "'out_shape' must be the shape of one row of outputs, got None",
    ),
    "no gated outputs": (
        lambda: GatedMLP(3),
        "'out_shape' must be the shape of one row of outputs, got None",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_built_is_refused_in_one_sentence(name):
    make, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


# In a VAE


def convolutional_vae():
    return VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(
            lambda out_shape: ConvDecoder(2, out_shape, **SMALL, num_blocks=1), IMAGE
        ),
        DiagNormalPosterior(
            lambda out_shape: ConvEncoder(IMAGE, out_shape, **SMALL, num_blocks=1), IMAGE, 2
        ),
    )


@pytest.mark.slow
def test_a_traced_step_of_a_convolutional_vae_is_that_of_plain_pyro_bit_for_bit():
    vae, batches = convolutional_vae(), torch.randn(6, 5, *IMAGE).sign().relu()
    received, expected = (steps(vae, batches, trace) for trace in (True, False))
    torch.testing.assert_close(received, expected, rtol=0, atol=0)


def steps(vae, batches, trace):
    """Losses and gradients of some steps from the same start, and the random number that follows."""
    vae = copy.deepcopy(vae)
    optim = torch.optim.Adam(vae.parameters(), lr=0.01)
    svi = SVI(vae.model, vae.guide, optim, TraceMeanField_ELBO(), execution=Execution(trace=trace))
    torch.manual_seed(1)
    results = []
    for x in batches:
        loss = svi.step(x)
        results.append([loss, *(parameter.grad for parameter in vae.parameters())])
    assert svi.how == ("traced" if trace else "plain")
    return results, torch.randn(())


def test_the_bias_starts_at_the_mean_of_the_data():
    decoder = ConvDecoder(2, (2, *IMAGE), **SMALL)
    likelihood, mean = NormalLikelihood(decoder, IMAGE, NetworkScale()), torch.randn(IMAGE)
    nn.init.zeros_(decoder.stages[-1].weight)
    likelihood.initialize_bias(mean)
    torch.testing.assert_close(likelihood(torch.randn(3, 2)).mean, mean.expand(3, *IMAGE))


def test_pyro_draws_a_convolutional_vae():
    x = torch.zeros(3, *IMAGE)
    assert "z -> x" in pyro.render_model(convolutional_vae().model, model_args=(x,)).source
