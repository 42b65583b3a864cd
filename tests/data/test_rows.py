"""Rows in memory, and the batches that are dealt from them."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyro_vae import (
    DynamicDraw,
    FixedDraw,
    Identity,
    OpenUnitInterval,
    Rows,
    Shuffled,
    Threshold,
    UnitInterval,
    WithReplacement,
    load_splits,
)
from pyro_vae.data import Source, Transform, as_rows
from pyro_vae.support import stream

BLOCK_ROWS = 4096  # what Rows converts at a time; tests go past it


def grey_rows(num_rows, transform, seed=0):
    levels = torch.randint(
        256, (num_rows, 2, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    return Rows(levels, transform, 255.0, torch.arange(num_rows))


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.bool, torch.int64, torch.float32, torch.float64], ids=str
)
def test_a_batch_has_the_default_dtype_whatever_is_stored(dtype, default_dtype):
    batch = Rows(torch.eye(3).to(dtype), Identity()).batch(torch.tensor([2, 0]))
    assert batch.dtype == default_dtype
    assert torch.equal(batch, torch.eye(3)[[2, 0]])


@pytest.mark.parametrize(
    "transform", [Identity(), UnitInterval(), Threshold(), DynamicDraw()], ids=repr
)
def test_bytes_stay_bytes_in_memory(transform):
    class Bytes(Source):
        def read(self):
            return grey_rows(20, Identity()), grey_rows(10, Identity(), seed=1)

    splits = load_splits(Bytes(), transform, validation_fraction=0.25)
    parts = [*splits, splits.train.to("cpu"), splits.train.take(slice(3))]
    assert [rows.levels.dtype for rows in parts] == [torch.uint8] * 5


def test_rows_taken_keep_their_labels_and_their_transform():
    rows = grey_rows(6, Threshold(0.3)).take(torch.tensor([4, 1]))
    assert rows.labels.tolist() == [4, 1]
    assert (len(rows), rows.x_shape, rows.max_level, rows.transform.threshold) == (
        2,
        (2, 3),
        255.0,
        0.3,
    )


@pytest.mark.parametrize("transform", [Identity(), UnitInterval(), Threshold()], ids=repr)
@pytest.mark.parametrize("num_rows", [1, BLOCK_ROWS, BLOCK_ROWS + 900])
def test_the_mean_of_rows_is_the_plain_mean(transform, num_rows):
    rows = grey_rows(num_rows, transform)
    expected = rows.batch(slice(None)).double().mean(0)
    torch.testing.assert_close(rows.mean().double(), expected, rtol=1e-5, atol=0)


def test_the_mean_of_a_random_transform_is_its_expectation():
    assert torch.equal(grey_rows(500, DynamicDraw()).mean(), grey_rows(500, UnitInterval()).mean())


@pytest.mark.parametrize("transform", [Identity(), UnitInterval(), Threshold()], ids=repr)
@pytest.mark.parametrize("num_rows", [1, BLOCK_ROWS + 900])
def test_the_standard_deviation_of_rows_is_the_plain_one(transform, num_rows):
    rows = grey_rows(num_rows, transform)
    expected = rows.batch(slice(None), torch.float64).std(0, correction=0)
    torch.testing.assert_close(rows.std().double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("offset", [0, 1e5, 1e9])
def test_an_offset_takes_no_digits_from_the_standard_deviation(offset):
    levels = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64).repeat(BLOCK_ROWS).unsqueeze(1)
    assert Rows(levels + offset, Identity()).std().item() == pytest.approx(1.25**0.5, rel=1e-6)


def test_the_standard_deviation_of_a_random_transform_has_the_spread_of_its_draws():
    """Var[x] = p (1 - p) for binary x, where p is the mean grey level, however the levels are spread."""
    rows = grey_rows(500, DynamicDraw())
    mean = grey_rows(500, UnitInterval()).batch(slice(None), torch.float64).mean(0)
    torch.testing.assert_close(rows.std().double(), (mean * (1 - mean)).sqrt(), rtol=1e-6, atol=0)


def test_a_random_transform_of_ones_own_has_the_spread_of_its_draws_and_takes_no_draws_of_others():
    class Jittered(UnitInterval):
        def __call__(self, levels, max_level):
            return self.mean(levels, max_level) + torch.randn_like(levels)

        def mean(self, levels, max_level):
            return levels / max_level

    rows = Rows(torch.full((20_000, 2), 3, dtype=torch.uint8), Jittered(), 255.0)
    before = torch.get_rng_state()
    # The error of a standard deviation is 1 / sqrt(2 N): five of them fail with probability 2 * 5.7e-7.
    assert ((rows.std() - 1).abs() < 5 / 40_000**0.5).all()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_standard_deviation_is_that_of_the_observed_entries():
    levels = torch.tensor(
        [[1.0, torch.nan, 5.0], [3.0, torch.nan, torch.nan], [torch.nan, torch.nan, 5.0]]
    )
    assert Rows(levels, Identity()).std().tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("num_rows", [1, 7, 8, 20])
def test_blocks_cover_every_row_once_and_in_order(num_rows):
    rows = grey_rows(num_rows, Identity())
    assert torch.equal(
        torch.cat([rows.labels[block] for block in rows.blocks(8)]), torch.arange(num_rows)
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64], ids=str)
def test_content_order_does_not_depend_on_the_arrangement(dtype):
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (300, 1, 5), generator=generator).to(dtype)
    levels[10] = levels[20]  # equal rows may change places, since nobody can tell them apart
    shuffled = levels[torch.randperm(300, generator=generator)]
    first, second = (
        rows.levels[rows.content_order()] for rows in (as_rows(levels), as_rows(shuffled))
    )
    assert torch.equal(first, second)
    assert torch.equal(as_rows(levels).content_order().sort().values, torch.arange(300))


def test_content_order_reads_the_rows_and_not_their_place_in_memory():
    levels = torch.arange(60, dtype=torch.uint8).reshape(6, 10)
    strided = levels.t().contiguous().t()
    assert torch.equal(as_rows(levels).content_order(), as_rows(strided).content_order())


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        (
            torch.zeros(0, 3),
            r"'data' must have the shape \(rows, ...\) with at least one row, got \(0, 3\)",
        ),
        (
            torch.zeros(3, 0),
            r"'data' must have the shape \(rows, ...\) with at least one row, got \(3, 0\)",
        ),
        (
            torch.zeros(5),
            r"'data' must have the shape \(rows, ...\) with at least one row, got \(5,\)",
        ),
        (
            torch.zeros(()),
            r"'data' must have the shape \(rows, ...\) with at least one row, got \(\)",
        ),
        (
            torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]),
            r"'data' must be finite, got NaN or infinity in 1 of 2 rows",
        ),
        (torch.tensor([[-torch.inf, torch.nan], [torch.inf, 1.0]]), r"in 2 of 2 rows"),
        (
            torch.zeros(2, 2, dtype=torch.complex64),
            r"'data' must be an array of real numbers, got complex numbers, torch.complex64",
        ),
    ],
)
def test_unusable_data_are_refused_with_one_sentence(levels, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        as_rows(levels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_rows", [1, 2, BLOCK_ROWS + 4])
def test_constant_data_are_refused(num_rows):
    with pytest.raises(
        ValueError, match=f"'data' must vary from row to row, got {num_rows} equal rows"
    ):
        as_rows(torch.arange(3).expand(num_rows, 3)).check_varied()


def test_one_row_that_differs_late_is_variation_enough():
    levels = torch.zeros(BLOCK_ROWS + 4, 3)
    levels[-1, 2] = 1
    as_rows(levels).check_varied()


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.uint32, np.int32, np.float32, np.float64, np.bool_]
)
def test_numpy_arrays_become_rows_that_torch_computes_with(dtype):
    rows = as_rows(np.eye(3, dtype=dtype))
    assert (rows.levels.sum(0) == 1).all()
    assert torch.equal(rows.batch(slice(None)), torch.eye(3))


def test_rows_pass_through_as_they_are():
    rows = grey_rows(3, Threshold())
    assert as_rows(rows) is rows


# Rows by hand are those of load_splits

TRANSFORMS = [
    Identity(),
    UnitInterval(),
    OpenUnitInterval(),
    Threshold(0.3),
    FixedDraw(3),
    DynamicDraw(),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.int64, torch.bool, torch.float32], ids=str
)
def test_rows_by_hand_mean_what_they_mean_from_a_source(transform, dtype):
    levels = (torch.rand(200, 1, 3, generator=torch.Generator().manual_seed(0)) < 0.4).long()
    levels = (levels * (1 if dtype in (torch.bool, torch.float32) else 200)).to(dtype)

    class Levels(Source):
        def read(self):
            return (Rows(levels, Identity()),) * 2

    splits = load_splits(Levels(), transform)
    for part, rows in ((0, splits.train), (2, splits.test)):
        by_hand = Rows(levels, transform, part=part)
        assert (by_hand.max_level, by_hand.levels.dtype) == (rows.max_level, rows.levels.dtype)
        assert torch.equal(by_hand.levels, rows.levels)
        assert torch.equal(by_hand.mean(), rows.mean())


@pytest.mark.parametrize("transform", TRANSFORMS[1:], ids=repr)
def test_rows_by_hand_lie_in_the_range_of_their_transform(transform):
    grey = torch.arange(256, dtype=torch.uint8).repeat(20).reshape(-1, 4)
    x = Rows(grey, transform).batch(slice(None))
    assert x.min() >= 0
    assert x.max() <= 1
    # The mean of 5120 draws of variance below 1/4: five standard errors fail with probability 5.7e-7.
    assert (
        abs(x.mean().item() - (0.7 if isinstance(transform, Threshold) else 0.5))
        < 5 * 0.5 / 5120**0.5
    )
    for beyond in (torch.tensor([[0.0, 1.5]]), torch.tensor([[-1, 3]])):
        with pytest.raises(ValueError, match="'data' must lie in 0 ... "):
            Rows(beyond, transform)


class Doubled(Transform):
    """Prepares by doubling, which shows how often it is done."""

    def prepare(self, levels, max_level, part):
        return levels * 2, max_level * 2

    def __call__(self, levels, max_level):
        return levels


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.take(slice(None)),
        lambda rows: rows.take(torch.arange(4)).take(slice(4)),
        lambda rows: rows.to("cpu"),
        lambda rows: replace(rows, labels=torch.arange(4)),
        lambda rows: replace(rows.take(slice(None)), part=2),
        lambda rows: as_rows(rows, missing="nan"),
        lambda rows: copy.deepcopy(replace(copy.deepcopy(rows), labels=None)),
        lambda rows: replace(pickle.loads(pickle.dumps(rows)), labels=None),
    ],
)
def test_rows_made_of_others_are_not_prepared_again(change):
    levels = torch.tensor(
        [[0.0, 0.5, torch.nan], [1.0, 0.2, 0.1], [0.3, 0.2, 0.1], [0.0, 0.0, 0.0]]
    )
    rows = change(Rows(levels, Doubled()))
    assert rows.max_level == 2
    torch.testing.assert_close(rows.batch(slice(None)), 2 * levels, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_another_transform_or_other_levels_are_prepared(dtype):
    levels = torch.full((50, 4), 1, dtype=dtype)
    rows = Rows(levels, Identity(), max_level=2)
    drawn = replace(rows, transform=FixedDraw(1))
    assert torch.equal(drawn.levels, Rows(levels, FixedDraw(1), max_level=2).levels)
    assert 0 < drawn.mean().mean() < 1
    assert torch.equal(
        Rows(drawn.levels, drawn.transform).levels, drawn.levels
    )  # drawn levels stay
    with pytest.raises(ValueError, match="'data' must lie in 0 ... 1 for the transform FixedDraw"):
        replace(drawn, levels=torch.full((50, 4), 255, dtype=torch.uint8))


# Images


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (48, 64, 4), (5, 2, 1), (4, 4, 3)])
def test_images_with_their_channels_last_are_refused_until_it_is_said(shape):
    images = torch.rand(3, *shape)
    with pytest.raises(
        ValueError,
        match=rf"'data' must have images .*got \({shape[0]}, .*set 'channels_last' of Rows",
    ):
        as_rows(images)
    moved = Rows(images, Identity(), channels_last=True)
    assert torch.equal(moved.levels, images.permute(0, 3, 1, 2))
    assert moved.levels.is_contiguous()
    assert (
        moved.take(slice(2)).x_shape
        == replace(moved, labels=torch.arange(3)).x_shape
        == (shape[2], *shape[:2])
    )
    kept = Rows(images, Identity(), channels_last=False)
    assert kept.x_shape == kept.take(slice(1)).x_shape == shape


@pytest.mark.parametrize(
    "shape",
    [
        (3,),
        (4,),
        (28, 28),
        (28, 3),
        (28, 1),
        (1, 28, 28),
        (3, 32, 32),
        (4, 9, 9),
        (3, 4, 3),
        (16, 4, 4),
        (5, 1, 1),
    ],
)
def test_other_rows_stay_as_they_are(shape):
    assert as_rows(torch.rand(2, *shape)).x_shape == shape


@pytest.mark.parametrize("shape", [(5,), (28, 28), (2, 3, 4, 5)])
def test_channels_last_is_for_images(shape):
    with pytest.raises(
        ValueError,
        match=r"'channels_last' must be left out except for images of the shape \(rows, H, W, C\)",
    ):
        Rows(torch.rand(2, *shape), Identity(), channels_last=True)


# Batches


@pytest.mark.parametrize(("num_rows", "size"), [(10, 4), (8, 4), (3, 3), (3, 5)])
def test_shuffled_deals_each_row_once(num_rows, size):
    batches = Shuffled(size)
    with stream(0):
        dealt = list(batches.indices(num_rows))
    assert torch.equal(torch.cat(dealt).sort().values, torch.arange(num_rows))
    assert (len(dealt), batches.num_dealt(num_rows)) == (batches.num_batches(num_rows), num_rows)
    assert all(len(index) == size for index in dealt[:-1])


@pytest.mark.parametrize(("num_rows", "size", "num_batches"), [(10, 4, 2), (8, 4, 2), (3, 5, 0)])
def test_shuffled_can_leave_out_a_short_last_batch(num_rows, size, num_batches):
    batches = Shuffled(size, drop_last=True)
    with stream(0):
        dealt = list(batches.indices(num_rows))
    assert [len(index) for index in dealt] == [size] * num_batches
    assert (batches.num_batches(num_rows), batches.num_dealt(num_rows)) == (
        num_batches,
        num_batches * size,
    )
    assert len({int(row) for index in dealt for row in index}) == num_batches * size


def test_shuffled_has_another_order_in_each_epoch_and_the_same_one_from_the_same_stream():
    def orders():
        with stream(3):
            return [torch.cat(list(Shuffled(8).indices(100))).tolist() for _ in range(2)]

    first, second = orders()
    assert first != second
    assert orders() == [first, second]


def test_a_short_last_batch_left_out_is_another_one_in_each_epoch():
    with stream(0):
        left_out = [
            set(range(11)) - set(torch.cat(list(Shuffled(5, True).indices(11))).tolist())
            for _ in range(50)
        ]
    assert len({row for rows in left_out for row in rows}) > 1


def test_with_replacement_deals_its_number_of_full_batches_from_all_rows_alike():
    batches = WithReplacement(size=50, batches=200)
    with stream(0):
        dealt = list(batches.indices(4))
    assert (batches.num_batches(4), batches.num_dealt(4)) == (200, 10_000)
    assert [len(index) for index in dealt] == [50] * 200
    counts = torch.cat(dealt).bincount(minlength=5)
    assert counts[4:].sum() == 0
    # Each count is Binomial(10000, 1/4): five standard errors fail with probability 4 * 5.7e-7.
    assert ((counts[:4] - 2500).abs() < 5 * (10_000 * 0.25 * 0.75) ** 0.5).all()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Shuffled(0), "size"),
        (lambda: Shuffled(2.5), "size"),
        (lambda: WithReplacement(5, 0), "batches"),
    ],
)
def test_batches_refuse_what_is_no_positive_whole_number(make, name):
    with pytest.raises(ValueError, match=f"'{name}' must be a whole number of at least 1"):
        make()
