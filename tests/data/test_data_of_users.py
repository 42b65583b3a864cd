"""Whatever holds the numbers of rows is converted in one way, or refused in one sentence."""

import numpy as np
import pytest
import scipy.sparse
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyro_vae import (
    MLP,
    VAE,
    BernoulliLikelihood,
    DiagNormalPosterior,
    Identity,
    Rows,
    StandardNormalPrior,
)
from pyro_vae.data import as_rows
from pyro_vae.evaluation.vae_rows import rows_for

X = torch.eye(4)
LABELS = torch.tensor([0, 2, 1, 2])


@pytest.fixture
def vae():
    likelihood = BernoulliLikelihood(MLP(2, [3], 4, context_dim=3), 4)
    posterior = DiagNormalPosterior(MLP(4, [3], 4, context_dim=3), 4, 2)
    return VAE(StandardNormalPrior(2), likelihood, posterior)


def of_inference_mode():
    with torch.inference_mode():
        return X.clone()


GIVEN = {
    "float64": X.double(),
    "bytes": X.byte(),
    "bool": X.bool(),
    "array": X.numpy().astype(">f8"),
    "list": X.tolist(),
    "list of tensors": list(X),
    "rows": Rows(X, Identity()),
    "inference mode": of_inference_mode(),
}
CONTEXTS = {
    "vectors": torch.eye(3)[LABELS],
    "float64": torch.eye(3).double()[LABELS],
    "whole vectors": torch.eye(3, dtype=torch.uint8)[LABELS].numpy(),
    "labels": LABELS,
    "list": LABELS.tolist(),
    "array": LABELS.numpy().astype("u2"),
}
METHODS = {
    "encode": lambda vae, x, y: vae.encode(x, y).mean,
    "elbo": lambda vae, x, y: vae.elbo(x, y),
    "reconstruct": lambda vae, x, y: vae.reconstruct(x, y),
    "guide": lambda vae, x, y: vae.guide(x, y),
    "log_likelihood": lambda vae, x, y: vae.log_likelihood(x, np.zeros((4, 2)), y),
    "sample": lambda vae, x, y: vae.sample(4, y),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("x", "y"), [(x, "vectors") for x in GIVEN] + [("bytes", y) for y in CONTEXTS]
)
def test_each_method_takes_numbers_in_any_form(vae, method, x, y):
    results = []
    for rows, context in ((X, CONTEXTS["vectors"]), (GIVEN[x], CONTEXTS[y])):
        torch.manual_seed(0)
        results.append(METHODS[method](vae, rows, context))
    assert torch.equal(*results)


def test_rows_bring_their_labels_and_one_label_stands_for_all_draws(vae):
    encoded = vae.encode(Rows(X, Identity(), labels=LABELS)).mean
    assert torch.equal(encoded, vae.encode(X, CONTEXTS["vectors"]).mean)
    assert vae.sample(np.int64(5), 2).shape == (5, 4)


class Stream(IterableDataset):
    """Rows that come one after another."""

    def __iter__(self):
        return iter(X)


REFUSED = {
    "None": (None, "got None"),
    "loader": (DataLoader(TensorDataset(X)), "a DataLoader: pass its rows as one tensor"),
    "stream": (Stream(), "a Stream: pass its rows"),
    "sparse tensor": (X.to_sparse(), "sparse or nested tensor"),
    "no numbers": (X.to("meta"), "the device meta"),
    "path": ("x.npy", "'x.npy': read a file first"),
    "dict": ({"x": X, "n": 3}, "a dict with the keys x, n: pass one"),
    "ragged": ([[1, 2], [3]], "rows differ in shape"),
    "ragged tensors": ([X[0], X[0, :2]], "rows differ in shape"),
    "text": ([["a", "b"]], "strings such as 'a': number them"),
    "hole": ([[1, None]], "objects such as None: .* NaN for missing"),
    "dates": (np.zeros((3, 4), "M8[s]"), "datetime64.*: convert dates to numbers"),
    "fields": (np.zeros(3, [("a", "f4"), ("b", "f4")]), "structured array of .*stack"),
    "complex": (X.numpy().astype(complex), "complex numbers"),
    "generator": ((row for row in X), "a generator"),
    "class": (np.ndarray, "the class ndarray"),
    "wide": (X.numpy().astype(np.longdouble), "convert it to float64"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("name", ["data", "validation", "x"])
def test_anything_else_is_refused_by_the_name_of_its_argument(vae, kind, name):
    value, words = REFUSED[kind]
    with pytest.raises(ValueError, match=f"^'{name}' must be an array of .*{words}") as caught:
        vae.elbo(value) if name == "x" else rows_for(vae, value, name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


ONLY_ROWS = {
    "data set": (TensorDataset(X), "a TensorDataset: pass its rows"),
    "sparse": (scipy.sparse.csr_array(X.numpy()), r"sparse csr_array: pass its toarray\(\)"),
}


@pytest.mark.parametrize("kind", ONLY_ROWS)
def test_a_method_of_the_vae_takes_no_storage(vae, kind):
    value, words = ONLY_ROWS[kind]
    with pytest.raises(ValueError, match=f"^'x' must be an array of .*{words}"):
        vae.elbo(value)


def test_a_table_names_the_columns_that_hold_no_numbers():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"age": [1.0, 2.0], "town": ["a", "b"]})
    with pytest.raises(ValueError, match="a DataFrame with text, dates .* in column 'town'"):
        as_rows(table)
    table = pandas.DataFrame({"age": pandas.array([1, None], dtype="Int64")})
    assert as_rows(table, missing="nan").levels.isnan().tolist() == [[False], [True]]


def test_a_pair_in_the_wrong_order_is_told_to_swap():
    with pytest.raises(ValueError, match=r"got x of the shape \(4,\) .*: swap them"):
        as_rows((LABELS, X))
