"""Files of weights: what is written is read back, and everything else is refused."""

import io
import zipfile

import pytest
import torch
from torch import nn

from pyro_vae import (
    MLP,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    FullNormalPosterior,
    LaplacePrior,
    NormalLikelihood,
    Standardized,
    StandardNormalPrior,
    initialize,
)
from pyro_vae.support.weight_files import architecture


def vae(hidden=8, missing=None, prior=StandardNormalPrior):
    return VAE(
        prior(2),
        BernoulliLikelihood(MLP(2, [hidden], 16), 16),
        DiagNormalPosterior(MLP(16, [hidden], 4), 16, 2),
        missing=missing,
    )


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "vae.pt"
    vae().save(path)
    return path


def assert_refused(module, path, sentence):
    before = weights(module)
    with pytest.raises(ValueError, match=sentence) as caught:
        module.load_weights(path)
    assert str(caught.value).count(". ") == 0  # one sentence
    assert_same(weights(module), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_vae_of_the_same_parts_reads_the_weights_bit_for_bit(dtype, tmp_path):
    first, second = vae().to(dtype), vae().to(dtype)
    first.save(tmp_path / "new" / "weights")
    assert not torch.equal(*(next(each.parameters()) for each in (first, second)))
    second.load_weights(str(tmp_path / "new" / "weights"))
    assert_same(weights(first), weights(second))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["weights"]


def test_constants_that_were_set_from_data_are_part_of_the_weights(tmp_path):
    def built():
        encoder = Standardized(MLP(3, [], 4), 3)
        return VAE(
            StandardNormalPrior(2),
            NormalLikelihood(MLP(2, [], 3), 3),
            DiagNormalPosterior(encoder, 3, 2),
        )

    first, second = built(), built()
    x = 100 + 7 * torch.randn(50, 3)
    initialize(first, x)
    first.save(tmp_path / "vae.pt")
    second.load_weights(tmp_path / "vae.pt")
    torch.testing.assert_close(first.reconstruct(x), second.reconstruct(x), rtol=0, atol=0)


def test_a_file_holds_the_repr_and_is_read_without_running_code(saved):
    content = torch.load(saved, weights_only=True)
    assert content["repr"] == repr(vae())
    assert content["architecture"] == architecture(vae())


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (vae(hidden=9), r"'likelihood.network.layers.0.weight' has the shape \(9, 2\) here, and "),
        (vae(prior=LaplacePrior), "'prior' is a LaplacePrior here, and a StandardNormalPrior ther"),
        (
            VAE(
                StandardNormalPrior(2),
                BernoulliLikelihood(MLP(2, [8], 16), 16),
                FullNormalPosterior(MLP(16, [8], 5), 16, 2),
            ),
            "'posterior' is a FullNormalPosterior here, and a DiagNormalPosterior there.",
        ),
        (
            VAE(
                StandardNormalPrior(2),
                BernoulliLikelihood(MLP(2, [8, 8], 16), 16),
                DiagNormalPosterior(MLP(16, [8], 4), 16, 2),
            ),
            "it lacks .likelihood.network.layers.4.weight",
        ),
    ],
)
def test_another_architecture_is_refused_by_its_first_difference(saved, other, difference):
    assert_refused(other, saved, f"vae.pt must hold the weights of this VAE, but .*{difference}")


def test_a_module_without_weights_is_part_of_the_architecture(tmp_path):
    def with_activation(*activation):
        network = nn.Sequential(nn.Linear(16, 4), *activation)
        return VAE(
            StandardNormalPrior(2),
            BernoulliLikelihood(MLP(2, [8], 16), 16),
            DiagNormalPosterior(network, 16, 2),
        )

    plain, softened = with_activation(), with_activation(nn.Softplus())
    plain.save(tmp_path / "plain.pt")
    softened.save(tmp_path / "softened.pt")
    name = "posterior.network.1"
    assert_refused(softened, tmp_path / "plain.pt", f"VAE, but it lacks '{name}'.$")
    assert_refused(plain, tmp_path / "softened.pt", f"but it has '{name}', which this module has")


def test_other_arguments_of_the_same_architecture_are_told(saved):
    changed = vae(missing="nan")
    with pytest.warns(UserWarning, match=r"from a VAE with other arguments: .* there is .*nan"):
        changed.load_weights(saved)
    assert_same(weights(changed), torch.load(saved, weights_only=True)["weights"])


def test_weights_that_are_nan_are_neither_written_nor_read(saved):
    broken = vae()
    with torch.no_grad():
        next(broken.likelihood.parameters())[0, 0] = torch.nan
    with pytest.raises(ValueError, match="VAE must have finite weights, got NaN .* 'likelihood"):
        broken.save(saved.with_name("nan.pt"))
    assert not saved.with_name("nan.pt").exists()


def test_a_file_with_nan_is_refused(saved, monkeypatch):
    broken = vae()
    with torch.no_grad():
        next(broken.likelihood.parameters())[0, 0] = torch.inf
    monkeypatch.setattr("pyro_vae.support.weight_files.not_finite", lambda *_: None)
    broken.save(saved)
    monkeypatch.undo()
    assert_refused(vae(), saved, "must hold finite weights, got NaN or infinity in 'likelihood")


@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_a_flipped_bit_is_never_read_as_weights(saved, place):
    content = bytearray(saved.read_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:  # the bytes of the tensors themselves
        tensors = [
            part for part in archive.infolist() if "/data/" in part.filename and part.file_size
        ]
        starts = [content.index(archive.read(part)) for part in tensors]
        sizes = [part.file_size for part in tensors]
    number = round(place * (len(tensors) - 1))
    content[starts[number] + round(place * (sizes[number] - 1))] ^= 1 << 6
    saved.write_bytes(content)
    assert_refused(vae(), saved, "must be as save wrote it, but is damaged")


def test_a_truncated_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-200])
    assert_refused(vae(), saved, "must be a file of weights, but is truncated or foreign")


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (vae().state_dict(), "got a state dict: use load_state_dict"),
        (torch.zeros(3), "got tensor"),
        ({"format": "another"}, "got {'format': 'another'}"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path, content, received):
    torch.save(content, tmp_path / "other.pt")
    assert_refused(vae(), tmp_path / "other.pt", f"must be written by save, {received}")


def test_a_pickled_module_is_refused_and_not_run(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    assert_refused(
        vae(), tmp_path / "module.pt", "must be a file of weights, but is truncated or f"
    )


def test_a_file_of_a_newer_format_says_so(saved):
    content = torch.load(saved, weights_only=True)
    torch.save(content | {"format": content["format"][:-1] + "2"}, saved)
    assert_refused(vae(), saved, "got weights of pyro_vae, format 2: a newer pyro_vae wrote it")


def test_a_run_folder_is_read_by_load(tmp_path, saved):
    (tmp_path / "run.json").touch()
    assert_refused(vae(), tmp_path, "'path' must be a file of weights, got the folder .*load")
    torch.save(vae().state_dict(), tmp_path / "best.pt")
    assert_refused(vae(), tmp_path / "best.pt", r"a file of a run folder: use pyro_vae.load\('")


def test_a_missing_file_and_an_empty_name_are_refused(tmp_path):
    assert_refused(vae(), tmp_path / "none.pt", "got .*none.pt, which does not exist")
    assert_refused(vae(), "", "'path' must be the name of a file, got an empty string")
    assert_refused(vae(), 3, "'path' must be a string or a path, got 3")


def test_only_a_file_of_its_own_kind_is_replaced(tmp_path, saved):
    other = tmp_path / "data.csv"
    other.write_text("1,2\n")
    with pytest.raises(ValueError, match="'path' must be a new file, or one of an earlier call"):
        vae().save(other)
    with pytest.raises(ValueError, match="'path' must be a file, got the folder"):
        vae().save(tmp_path)
    assert other.read_text() == "1,2\n"
    newer = vae()
    newer.save(saved)
    again = vae()
    again.load_weights(saved)
    assert_same(weights(again), weights(newer))
