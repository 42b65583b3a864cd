"""Exported encoders and decoders: the VAE's own numbers, for any number of rows, by torch alone."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from pyro_vae import (
    MLP,
    VAE,
    AffineFlow,
    BernoulliLikelihood,
    BinomialLikelihood,
    ConvDecoder,
    ConvEncoder,
    DiagNormalPosterior,
    DiscretizedLogisticLikelihood,
    FlowPosterior,
    FullNormalPosterior,
    NegativeBinomialLikelihood,
    NormalLikelihood,
    Standardized,
    StandardNormalPrior,
    WithMask,
)
from pyro_vae.runs import export

X_SHAPE = (1, 4, 4)
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def vae_of(likelihood=None, posterior=None, **options):
    torch.manual_seed(0)
    return VAE(
        StandardNormalPrior(2),
        likelihood or BernoulliLikelihood(MLP(2, [8], 16), X_SHAPE),
        posterior or DiagNormalPosterior(MLP(16, [8], 4), X_SHAPE, 2),
        **options,
    )


def with_dropout():
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 4)
    )
    return vae_of(posterior=DiagNormalPosterior(network, X_SHAPE, 2))


def with_missing():
    encoder = WithMask(lambda in_shape: MLP(in_shape, [8], 4), X_SHAPE)
    likelihood = NormalLikelihood(MLP(2, [8], 16), X_SHAPE)
    return vae_of(likelihood, DiagNormalPosterior(encoder, X_SHAPE, 2), missing="nan")


def conditional():
    return vae_of(
        BernoulliLikelihood(MLP(2, [8], 16, context_dim=3), X_SHAPE),
        DiagNormalPosterior(MLP(16, [8], 4, context_dim=3), X_SHAPE, 2),
    )


def convolutional():
    return vae_of(
        BernoulliLikelihood(ConvDecoder(2, (1, 8, 8), [8, 4]), (1, 8, 8)),
        DiagNormalPosterior(ConvEncoder((1, 8, 8), 4, [4, 8]), (1, 8, 8), 2),
    )


def of_counts():
    likelihood = NegativeBinomialLikelihood(lambda out_shape: MLP(2, [8], out_shape), X_SHAPE)
    return vae_of(
        likelihood, DiagNormalPosterior(Standardized(MLP(16, [8], 4), X_SHAPE), X_SHAPE, 2)
    )


def of_levels():
    make = DiscretizedLogisticLikelihood
    return vae_of(make(lambda out_shape: MLP(2, [8], out_shape), X_SHAPE, num_levels=20))


def full():
    return vae_of(
        BinomialLikelihood(MLP(2, [8], 16), X_SHAPE, 16),
        FullNormalPosterior(MLP(16, [8], 5), X_SHAPE, 2),
    )


def rows_for(vae, num_rows):
    """Rows, latents and contexts for a VAE."""
    x = torch.rand(num_rows, *vae.x_shape)
    if vae.missing:
        x[x < 0.3] = torch.nan
    y = (torch.rand(num_rows, vae.context_dim),) if vae.context_dim else ()
    return x, torch.randn(num_rows, 2), y


def assert_equal_to_its_own(vae, files):
    vae.eval()
    encoder, decoder = (torch.export.load(file).module() for file in files)
    for num_rows in (1, 2, 7):
        x, z, y = rows_for(vae, num_rows)
        with torch.no_grad():
            q_z = vae.encode(x, *y)
            torch.testing.assert_close(encoder(x, *y), (q_z.mean, q_z.stddev), **TOLERANCE)
            torch.testing.assert_close(decoder(z, *y), vae.decode(z, *y).mean, **TOLERANCE)


@pytest.mark.parametrize(
    "make",
    [
        vae_of,
        *(
            pytest.param(make, marks=pytest.mark.slow)
            for make in (
                conditional,
                of_levels,
                with_dropout,
                with_missing,
                convolutional,
                of_counts,
                full,
            )
        ),
    ],
)
def test_exported_files_give_the_numbers_of_the_vae_for_any_number_of_rows(make, tmp_path):
    vae = make().train()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    files = export(vae, tmp_path / "new")
    assert [file.name for file in files] == ["encoder.pt2", "decoder.pt2"]
    assert vae.training
    assert all(parameter.requires_grad for parameter in vae.parameters())
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert_equal_to_its_own(vae, files)


def test_exporting_leaves_random_state_and_validation_alone(tmp_path):
    vae = vae_of()
    state = torch.get_rng_state()
    validation = torch.distributions.Distribution._validate_args
    export(vae, tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.distributions.Distribution._validate_args is validation


WITHOUT = """
import sys, torch
sys.modules["pyro_vae"] = sys.modules["pyro"] = None
x, z, mean, scale, decoded = torch.load("numbers.pt", weights_only=True)
encoder, decoder = (torch.export.load(f"{name}.pt2").module() for name in ("encoder", "decoder"))
for found, expected in ((encoder(x)[0], mean), (encoder(x)[1], scale), (decoder(z), decoded)):
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
print("equal")
"""


@pytest.mark.slow
def test_a_process_without_this_package_gets_the_numbers_of_the_vae(tmp_path):
    vae = full().eval()
    export(vae, tmp_path)
    x, z, _ = rows_for(vae, 5)
    with torch.no_grad():
        q_z = vae.encode(x)
        torch.save([x, z, q_z.mean, q_z.stddev, vae.decode(z).mean], tmp_path / "numbers.pt")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "equal\n", done.stderr


class ByNumber(nn.Module):
    """A network that only works for the number of rows that it has seen first."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, x):
        return torch.stack([self.layer(row) for row in x.flatten(1).unbind()])


@pytest.mark.parametrize(
    ("posterior", "sentence"),
    [
        (
            lambda: FlowPosterior(lambda size: MLP(16, [8], size), X_SHAPE, 2, AffineFlow()),
            "'vae' must have a mean and a scale in closed form .* FlowPosterior has none",
        ),
        (
            lambda: DiagNormalPosterior(ByNumber(), X_SHAPE, 2),
            "'vae' must have networks that can be traced for any number of rows, but its encoder",
        ),
    ],
)
def test_what_cannot_be_exported_is_told_and_nothing_is_written(tmp_path, posterior, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        export(vae_of(posterior=posterior()), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="'folder' must be a folder that can be written"):
        export(vae_of(), tmp_path / "file")
