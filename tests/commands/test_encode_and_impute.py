"""What `encode` and `impute` write: the codes of rows, and rows in the columns of their file."""

import csv
import re

import numpy as np
import pytest
from command_line import command

from pyro_vae import load, rows_like
from pyro_vae.evaluation import encode_rows, impute

NETWORKS = ["--vae.encoder.hidden=[8]", "--vae.decoder.hidden=[8]", "--vae.latent_dim=2"]
SMALL = [*NETWORKS, "--epochs=1", "--training.execution.trace=false", "--device=cpu"]
KINDS = ["ant", "bee", "cat"]


def write_table(path, num_rows=60):
    generator = np.random.default_rng(0)
    kind = generator.integers(3, size=num_rows)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["mass", "kind", "eggs", "name"])
        for number, place in enumerate(kind):
            mass = "" if number % 7 == 0 else 600 + 100 * place + generator.normal()
            name = "" if number % 5 == 1 else KINDS[place]
            writer.writerow([mass, name, generator.poisson(1 + 5 * place), f"row {number}"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    write_table(folder / "t.csv")
    ended = command(folder, "train", "--data=t.csv", "--data.ignored=name", *SMALL, "--run=run")
    assert ended.code == 0, ended.err
    return folder, ended


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_says_what_the_columns_are_and_what_scores_them(trained):
    found, scored = trained[1].out.split(" The likelihood is ", 1)
    assert re.fullmatch(
        r"3 columns: 1 real, 1 whole ≥ 0, 1 category of 3, 11\.\d% of .* missing\.", found
    )
    assert scored.startswith(
        "ProductLikelihood (NormalLikelihood of 1, OneHotCategoricalLikelihood of 3, "
        "NegativeBinomialLikelihood of 1).\n"
    )


def test_imputed_rows_have_the_columns_and_units_of_their_file(trained, tmp_path):
    folder, _ = trained
    out = str(tmp_path / "imputed.csv")
    ended = command(folder, "impute", "run", "t.csv", f"--out={out}", "--num_samples=50")
    assert ended.code == 0, ended.err
    given, filled = table(folder / "t.csv"), table(tmp_path / "imputed.csv")
    assert list(filled[0]) == ["row", "mass", "kind", "eggs", "khat"]
    for before, after in zip(given, filled, strict=True):
        if before["mass"]:
            assert float(after["mass"]) == pytest.approx(float(before["mass"]), rel=1e-6)
        assert after["kind"] == before["kind"] if before["kind"] else after["kind"] in KINDS
        assert float(after["eggs"]) == float(before["eggs"])
    vae, rows = load(folder / "run"), rows_like(folder / "run", folder / "t.csv")
    means = impute(vae, rows, num_samples=50).mean
    np.testing.assert_allclose([float(row["mass"]) for row in filled], means[:, 0], rtol=1e-6)


def test_codes_are_those_of_the_vae_in_every_kind_of_file(trained, tmp_path):
    folder, _ = trained
    rows = rows_like(folder / "run", folder / "t.csv")
    codes = encode_rows(load(folder / "run"), rows, num_draws=3, num_importance_samples=30)
    counts = ("--num_importance_samples=30", f"--out={tmp_path}/codes")
    for ending, draws in ((".npz", ["--num_draws=3"]), (".npy", []), (".csv", [])):
        ended = command(folder, "encode", "run", "t.csv", *draws, counts[0], counts[1] + ending)
        assert ended.code == 0, ended.err
    with np.load(tmp_path / "codes.npz") as file:
        stored = dict(file)
    assert set(stored) == set(codes._fields)
    for name, value in codes._asdict().items():
        np.testing.assert_allclose(stored[name], value, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), stored["mean"])
    first = table(tmp_path / "codes.csv")[0]
    assert list(first) == ["row", "mean_0", "mean_1", "scale_0", "scale_1", "khat"]
    assert float(first["scale_1"]) == pytest.approx(stored["scale"][0, 1])


@pytest.mark.slow
def test_codes_lie_beside_the_matrix_that_they_are_of(trained, tmp_path):
    anndata = pytest.importorskip("anndata")
    x = np.random.default_rng(0).poisson(5.0, (30, 4)).astype(np.float32)
    anndata.AnnData(x).write_h5ad(tmp_path / "cells.h5ad")
    said = ["--data=cells.h5ad", "--vae.encoder.hidden=[8]", "--vae.decoder.hidden=[8]"]
    ended = command(tmp_path, "train", "counts", *said, *SMALL, "--run=run")
    assert ended.code == 0, ended.err
    ended = command(tmp_path, "encode", "run", "cells.h5ad", "--out=coded.h5ad")
    assert ended.code == 0, ended.err
    coded = anndata.read_h5ad(tmp_path / "coded.h5ad")
    means = encode_rows(load(tmp_path / "run"), rows_like(tmp_path / "run", x)).mean
    np.testing.assert_allclose(coded.obsm["X_pyro_vae"], means, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(coded.X), x)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["encode", "run", "--out=a.txt"], "'out' must end in .npy or .npz or .csv or .h5ad"),
        (["encode", "run", "--out=a.csv", "--num_draws=2"], "'out' must end in .npz to hold draws"),
        (["encode", "run", "--out=t.csv"], "'out' must be a new file, got t.csv, which exists"),
        (["encode", "run", "--out=a.h5ad"], "'data' must be a .h5ad file to write codes"),
        (["encode", "run", "--tsne=a.jpg"], "'tsne' must end in .png, got a.jpg"),
        (["impute", "run", "none.csv"], "'data' must be a folder of images, or .* No such file"),
        (["encode", "run", "t.csv", "--split=test"], "'split' chooses rows of the run and 'data'"),
        (["encode", "run", "--num_importance_samples=-1"], "'num_importance_samples' must be a w"),
        (["impute", "run", "--device=cuda:7"], "'device' must be auto or a device of this mach"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(trained, words, sentence):
    folder, _ = trained
    before = sorted(file.name for file in folder.iterdir())
    ended = command(folder, *words)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(ended.err.removeprefix("error: "))
    assert sorted(file.name for file in folder.iterdir()) == before


def test_a_picture_of_codes_is_drawn(trained, tmp_path):
    folder, _ = trained
    picture = tmp_path / "codes.png"
    ended = command(folder, "encode", "run", f"--out={tmp_path}/c.csv", f"--tsne={picture}")
    assert ended.code == 0, ended.err
    assert picture.stat().st_size > 5_000
