"""A sparse matrix, and rows that are read one by one, give what the same rows give as a tensor."""

import numpy as np
import pytest
import scipy.sparse
import torch
from torch.utils.data import Dataset, TensorDataset

from pyro_vae import (
    MLP,
    VAE,
    DiagNormalPosterior,
    DynamicDraw,
    Execution,
    FixedDraw,
    Identity,
    NegativeBinomialLikelihood,
    OpenUnitInterval,
    Rows,
    Shuffled,
    StandardNormalPrior,
    Threshold,
    Training,
    UnitInterval,
    evaluate,
    fit,
)
from pyro_vae.data import ReadOneByOne, SparseMatrix, as_rows, storage
from pyro_vae.runs.record import data_record

NAN = float("nan")
INDEX = torch.tensor([5, 0, 5, 29])


def counts(num_rows=30, num_columns=7):
    """Mostly zeros, with a row and a column that are empty."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.poisson(torch.full((num_rows, num_columns), 0.4), generator=generator)
    levels[3] = 0
    levels[:, 2] = 0
    return levels


def sparse(levels):
    """The matrix that torch's tensor holds, with its entries in no order."""
    matrix = scipy.sparse.csc_array(levels.numpy()).tocsr()
    matrix.has_sorted_indices = False
    return matrix


def one_by_one(levels):
    return ReadOneByOne(lambda number: levels[number], torch.arange(len(levels)), levels[0])


FORMS = {"sparse": sparse, "one by one": one_by_one}


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


@pytest.fixture
def small_blocks(monkeypatch):
    """A pass over the rows that takes a few at a time."""
    monkeypatch.setattr(storage, "_BLOCK_ENTRIES", 21)


INDICES = [
    INDEX,
    slice(4, 9),
    slice(None),
    slice(None, None, 4),
    torch.tensor([], dtype=torch.long),
]


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8])
def test_a_batch_is_that_of_the_tensor(form, index, dtype):
    levels = counts().to(dtype)
    rows, dense = Rows(form(levels), Identity()), Rows(levels, Identity())
    assert rows.levels[index].dtype == dtype
    assert torch.equal(rows.levels[index], levels[index])
    assert torch.equal(rows.batch(index), dense.batch(index))
    assert torch.equal(rows.levels[3], levels[3])
    assert (len(rows), rows.x_shape, rows.max_level) == (30, (7,), dense.max_level)
    if len(index if isinstance(index, torch.Tensor) else levels[index]):
        taken = rows.take(index).take(slice(1, None))
        assert torch.equal(taken.levels[slice(None)], levels[index][1:])


@pytest.mark.parametrize(
    "transform", [Identity(), UnitInterval(), OpenUnitInterval(), Threshold(0.1), DynamicDraw()]
)
@pytest.mark.parametrize("missing", [False, True])
def test_passes_over_all_rows_have_the_numbers_of_the_tensor(
    form, transform, missing, small_blocks
):
    levels = counts()
    if missing:
        levels[1, 0] = levels[0, 3] = NAN
    rows, dense = (Rows(given, transform, 9.0) for given in (form(levels), levels))
    assert rows.has_missing is missing
    assert torch.equal(rows.mean(), dense.mean())
    assert torch.equal(rows.std(), dense.std())
    assert torch.equal(rows.content_order(), dense.content_order())
    assert data_record(rows, rows) == data_record(dense, dense)
    rows.check_varied()
    assert torch.allclose(dense.mean()[4], dense.transform.mean(levels[:, 4], 9.0).nanmean(0))


def test_entries_that_stand_twice_are_added_and_the_matrix_stays_as_it_was():
    matrix = scipy.sparse.csr_array((np.array([1.0, 2.0, 5.0]), [1, 1, 0], [0, 2, 3]), shape=(2, 3))
    rows = Rows(matrix, Identity())
    assert rows.levels[slice(None)].tolist() == [[0, 3, 0], [5, 0, 0]]
    assert matrix.data.tolist() == [1, 2, 5]


def test_a_sparse_matrix_is_never_dense_beyond_a_batch(monkeypatch):
    """The dense form of these rows would need 3.7 TiB."""
    numbers, places = np.array([1.5, 2.5], dtype=np.float32), ([3, 70_000], [9_000_000, 0])
    matrix = scipy.sparse.csr_array((numbers, places), shape=(100_000, 10_000_000))
    monkeypatch.setattr(storage, "_BLOCK_ROWS", 1)
    stored = SparseMatrix.of(matrix)
    assert stored.nbytes < 2**20
    assert list(stored.distinct())[-1].tolist() == [0]
    taken = Rows(stored.take(slice(5)), Identity()).take(torch.tensor([3, 1]))
    assert taken.levels.shape == (2, 10_000_000)
    assert "held" in repr(taken)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda x: x.index_put((torch.tensor(2), torch.tensor(3)), torch.tensor(torch.inf)), "got NaN or infinity in 1 of 30 rows"),
        (lambda x: x - 1, r"must lie in 0 ... 9 for the transform UnitInterval\(\), got values from -1"),
    ],
)  # fmt: skip
def test_levels_are_refused_as_those_of_a_tensor_are(form, fault, sentence):
    for given in (fault(counts()), form(fault(counts()))):
        with pytest.raises(ValueError, match=sentence):
            Rows(given, UnitInterval(), 9.0)


def test_equal_rows_are_refused(form):
    with pytest.raises(ValueError, match="'data' must vary from row to row, got 30 equal rows"):
        Rows(form(torch.ones(30, 4)), Identity()).check_varied()


def test_a_number_that_the_dtype_changes_is_told(form, small_blocks):
    levels = counts().double()
    levels[17, 4] = 2**24 + 1
    with pytest.warns(UserWarning, match="such as 16777217 and 16777216 in element 4"):
        Rows(form(levels), Identity()).batch(slice(2))


def test_a_transform_that_stores_other_levels_is_refused(form):
    with pytest.raises(
        ValueError, match=r"'transform' must leave .* got FixedDraw\(seed=0\): take DynamicDraw"
    ):
        Rows(form(counts()), FixedDraw(), 9.0)


def test_a_sparse_matrix_of_other_numbers_or_another_shape_is_refused():
    with pytest.raises(ValueError, match="^'data' must be an array of real numbers, got complex"):
        Rows(scipy.sparse.eye_array(3, dtype=complex), Identity())
    with pytest.raises(
        ValueError, match=r"^'data' must have the shape \(rows, ...\) with at least one"
    ):
        Rows(scipy.sparse.csr_array((0, 3)), Identity())
    with pytest.raises(
        ValueError, match=r"'channels_last' must be left out for SparseMatrix\(3 × 3"
    ):
        Rows(scipy.sparse.eye_array(3), Identity(), channels_last=True)


def vae_of(num_columns):
    torch.manual_seed(0)
    likelihood = NegativeBinomialLikelihood(MLP(2, [5], num_columns), num_columns)
    posterior = DiagNormalPosterior(MLP(num_columns, [5], (2, 2)), num_columns, 2)
    return VAE(StandardNormalPrior(2), likelihood, posterior)


def test_training_and_evaluation_have_the_numbers_of_the_tensor(form):
    levels = counts()
    training = Training(epochs=2, batches=Shuffled(8), execution=Execution(trace=False))
    results = []
    for given in (levels, form(levels)):
        vae = vae_of(7)
        losses = [row.train_loss for row in fit(vae, given, training, test=given).history]
        results.append((losses, evaluate(vae, given, num_samples=5).to_json()))
    assert results[0] == results[1]


# Data sets of torch


class Numbered(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


@pytest.mark.parametrize("is_small", [True, False])
@pytest.mark.parametrize("has_labels", [True, False])
def test_a_data_set_gives_its_items(monkeypatch, is_small, has_labels):
    monkeypatch.setattr("pyro_vae.data.map_style.fits_in_memory", lambda num_bytes: is_small)
    levels = counts().to(torch.uint8)
    labels = torch.arange(30) % 4
    rows = as_rows(TensorDataset(levels, labels) if has_labels else TensorDataset(levels))
    assert isinstance(rows.levels, torch.Tensor) is is_small
    assert torch.equal(rows.batch(INDEX), levels[INDEX].float())
    assert rows.take(INDEX).labels.equal(labels[INDEX]) if has_labels else rows.labels is None
    assert rows.max_level == 255


def test_pictures_of_a_data_set_have_their_channels_first():
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    rows = as_rows(Numbered([(image.fromarray(pixels), 1), (image.fromarray(pixels + 9), 0)]))
    assert torch.equal(rows.levels[0], torch.from_numpy(pixels).permute(2, 0, 1))
    assert rows.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "^'data' must be a data set of torch with rows .* no items"),
        ([torch.ones(2), torch.ones(3)], r"whose rows are alike, got \(3,\) of torch.float32 in item 1"),
        ([torch.ones(2), torch.ones(2).double()], "whose rows are alike, .* torch.float64 in item 1"),
        ([(torch.ones(2), 1, 2)], r"items are x or a pair \(x, y\), got 3 parts in item 0"),
        (["a", "b"], "^'data' must be an array of real numbers, got 'a'"),
    ],
)  # fmt: skip
def test_a_data_set_without_rows_of_one_kind_is_refused(items, sentence):
    with pytest.raises(ValueError, match=sentence):
        as_rows(Numbered(items))


def test_the_batch_of_a_data_set_reaches_the_vae():
    levels = counts()
    vae = vae_of(7)
    torch.manual_seed(0)
    expected = vae.elbo(levels)
    torch.manual_seed(0)
    assert torch.equal(vae.elbo(as_rows(Numbered(list(levels))).batch(slice(None))), expected)
