"""What numbers are decides how they are read: dtype, highest level, and a word where float32 merges them."""

import warnings

import numpy as np
import pytest
import torch

from pyro_vae import ArrayFile, Identity, Rows, UnitInterval, load_splits
from pyro_vae.data import as_rows

ORDERS = ("<", ">", "=")


def saved(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    return str(tmp_path / "x.npy")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kind", "max_level"),
    [
        ("u1", 255),
        ("u2", 65_535),
        ("u4", 97),
        ("u8", 97),
        ("i1", 97),
        ("i2", 97),
        ("i8", 97),
        ("f2", 1),
        ("f8", 1),
    ],
)
def test_the_highest_level_depends_on_the_numbers_and_not_on_their_byte_order(
    tmp_path, order, kind, max_level
):
    array = (np.arange(60).reshape(20, 3) % 98 + 38).astype(order + kind)
    read, by_hand = ArrayFile(saved(tmp_path, array)).rows(), Rows(array, Identity())
    assert read.max_level == by_hand.max_level == as_rows(array).max_level == max_level
    for rows in (read, by_hand):
        assert torch.equal(rows.batch(slice(None)), torch.from_numpy(array.astype(np.float32)))


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "uint32", "uint64", "int16", "int32", "bool", "float32"]
)
def test_torch_and_numpy_give_the_same_rows(dtype):
    array = (np.arange(12).reshape(4, 3) % (2 if dtype in ("bool", "float32") else 12)).astype(
        dtype
    )
    theirs, ours = Rows(torch.from_numpy(array), UnitInterval()), Rows(array, UnitInterval())
    assert theirs.max_level == ours.max_level
    assert torch.equal(theirs.batch(slice(None)), ours.batch(slice(None)))


@pytest.mark.parametrize(("kind", "size"), [("u1", 1), ("u2", 4), (">u2", 4), ("u4", 8), ("i2", 2)])
def test_levels_take_no_more_memory_than_their_numbers_need(kind, size):
    array = np.array([[0, 2 ** (8 * np.dtype(kind).itemsize - 1) - 1]]).astype(kind)
    levels = as_rows(array).levels
    assert levels.element_size() == size
    assert levels.tolist() == array.tolist()


def test_what_numpy_makes_an_array_of_is_read():
    class Table:
        def __array__(self, dtype=None, copy=None):
            return np.array([[0, 1], [16, 2]], dtype=np.uint16)

    for numbers, max_level in (([[0, 1], [16, 2]], 16), (Table(), 65_535)):
        for rows in (Rows(numbers, Identity()), as_rows(numbers), as_rows((numbers, [0, 1]))):
            assert (rows.levels.tolist(), rows.max_level) == ([[0, 1], [16, 2]], max_level)


@pytest.mark.parametrize("name", ["data", "y"])
@pytest.mark.parametrize(
    "make", [lambda array: array, lambda array: array.astype(">u8"), torch.from_numpy]
)
@pytest.mark.parametrize("number", [2**63, 2**64 - 1])
def test_whole_numbers_from_two_to_the_63rd_are_refused(name, make, number):
    wide = make(np.array([[number, 1], [3, 4]], dtype=np.uint64))
    with pytest.raises(
        ValueError, match=rf"'{name}' must hold whole numbers below 2\^63, got {number}"
    ) as caught:
        as_rows(wide if name == "data" else (torch.eye(2), wide))
    assert "\n" not in str(caught.value)


def test_whole_numbers_below_two_to_the_63rd_keep_each_digit():
    assert as_rows(np.array([[2**63 - 1, 1]], dtype=np.uint64)).levels.tolist() == [[2**63 - 1, 1]]


@pytest.mark.parametrize("kind", ["u1", "u2", ">u2", "i8"])
def test_a_mask_takes_nothing_from_the_highest_level(kind):
    array = np.arange(12).reshape(4, 3).astype(kind)
    masked = np.ma.array(array, mask=np.eye(4, 3, k=1, dtype=bool))
    assert Rows(masked, Identity()).max_level == Rows(array, Identity()).max_level


# Numbers that become one


MERGED = {
    "time stamps": (
        np.array([[1_700_000_000], [1_700_000_001], [1_700_000_300]]),
        "1700000001 and 1700000000",
    ),
    "counts": (np.array([[2**24], [2**24 + 1]]), "16777217 and 16777216"),
    "negative": (np.array([[-(2**24) - 1], [0]]), "-16777217 and -16777216"),
    "int32": (np.array([[2**31 - 1], [5]], dtype=np.int32), "2147483647 and 2147483648"),
    "uint32": (np.array([[2**32 - 1], [5]], dtype=np.uint32), "4294967295 and 4294967296"),
    "whole numbers in float64": (np.array([[123_456_789.0], [np.nan]]), "123456789 and 123456792"),
    "masked": (np.ma.array([[2**24 + 1], [7]], mask=[[False], [True]]), "16777217 and 16777216"),
    "tiny spread": (1 + 1e-9 * np.arange(30.0).reshape(-1, 1), "1.0 and 1.000000001"),
    "fractions of seconds": (
        1.7e9 + 0.25 * np.arange(40.0).reshape(-1, 1),
        "1700000000.0 and 1700000000.25",
    ),
    "two rows": (np.array([[1.0], [1 + 2.0**-30]]), "1.0 and 1.0000000009313226"),
}


@pytest.mark.parametrize("name", MERGED)
def test_numbers_that_float32_cannot_tell_apart_are_named_once(name):
    array, pair = MERGED[name]
    rows = Rows(np.ma.concatenate([np.zeros_like(array), array], axis=1), Identity())
    sentence = f"'data' hold numbers that float32 cannot tell apart, such as {pair} in element 1 of a row: subtract"
    with pytest.warns(UserWarning, match=sentence):
        rows.batch(slice(None))
    rows.batch(slice(None))  # a second word would be an error


@pytest.mark.parametrize("name", MERGED)
def test_float64_tells_them_apart(name):
    array, _ = MERGED[name]
    rows = Rows(array, Identity())
    known = rows.batch(slice(None), torch.float64)
    assert torch.equal(
        known[~known.isnan()],
        torch.from_numpy(np.ma.filled(array.astype(float), np.nan))[~known.isnan()],
    )


@pytest.mark.parametrize(
    "array",
    [
        np.arange(256, dtype=np.uint8).reshape(-1, 1),
        np.array([[2**24], [-(2**24)]]),
        np.array([[2**40], [2**30]]),  # powers of two, which float32 holds
        np.random.default_rng(0).normal(size=(5000, 3)),
        1000 + np.random.default_rng(0).normal(size=(500, 3)),
        np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32) * 1e9,
        1e30 * np.random.default_rng(0).lognormal(size=(500, 3)),
        np.arange(2.0).repeat(50).reshape(-1, 1),
    ],
    ids=["bytes", "to the end", "powers of two", "normal", "offset", "float32", "vast", "binary"],
)
def test_what_float32_tells_apart_goes_without_a_word(array):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Rows(array, Identity()).batch(slice(None))


def test_the_element_of_an_image_is_named_by_its_place():
    images = torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    images[1, 0, 1, 0] = 2**24 + 1
    with pytest.warns(UserWarning, match=r"16777217 and 16777216 in element \(0, 1, 0\) of a row"):
        as_rows(images).batch(slice(None))


# The highest level of real numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_a_highest_level_that_is_given_makes_real_numbers_the_levels_they_are(tmp_path, dtype):
    levels = np.arange(256, dtype=np.uint8).reshape(64, 4)
    expected = load_splits(ArrayFile(saved(tmp_path, levels)), UnitInterval()).train
    path = saved(tmp_path, levels.astype(dtype))
    rows = [
        load_splits(ArrayFile(path, max_level=255), UnitInterval()).train,
        load_splits(ArrayFile(path), UnitInterval(), max_level=255).train,
    ]
    for part in rows:
        assert part.max_level == 255
        assert torch.equal(part.batch(slice(None)), expected.batch(slice(None)))


def test_a_level_above_the_highest_is_refused(tmp_path):
    path = saved(tmp_path, np.arange(40.0).reshape(20, 2))
    reads = [
        lambda: ArrayFile(path, max_level=38.5).read(),
        lambda: load_splits(ArrayFile(path), Identity(), max_level=38),
    ]
    for read in reads:
        with pytest.raises(
            ValueError,
            match="'max_level' must be at least the highest level of the data, 39, got 38",
        ):
            read()
    with pytest.raises(
        ValueError, match="'data' must lie in 0 ... 38 for the transform UnitInterval"
    ):
        Rows(np.arange(40).reshape(20, 2), UnitInterval(), max_level=38)


@pytest.mark.parametrize("max_level", [0, -1.0, float("nan"), float("inf")])
def test_a_highest_level_is_above_zero(tmp_path, max_level):
    for make in (
        lambda: Rows(torch.eye(2), Identity(), max_level),
        lambda: ArrayFile("x.npy", max_level=max_level),
    ):
        with pytest.raises(ValueError, match="'max_level' must be a finite number above 0, got"):
            make()


def test_levels_stored_as_real_numbers_are_told_of_the_setting():
    with pytest.raises(
        ValueError,
        match=r"from 0 to 255, which look like whole levels .* 'max_level', 255 for 8 bits",
    ):
        Rows(torch.arange(256.0).reshape(-1, 2), UnitInterval())
    with pytest.raises(ValueError, match=r"got values from -1 to 255: rescale them"):
        Rows(torch.tensor([[-1.0, 255.0]]), UnitInterval())
