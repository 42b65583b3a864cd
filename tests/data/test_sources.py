"""Data sets by name: sizes, splits and files; no test needs a network."""

import gc
import re
import struct
from urllib.error import URLError

import numpy as np
import pytest
import torch

from pyro_vae import (
    KMNIST,
    MNIST,
    ArrayFile,
    Digits,
    FashionMNIST,
    Identity,
    OneHot,
    Rows,
    UnitInterval,
    load_splits,
)
from pyro_vae.data.sources import warn_of_unused_labels

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def test_digits_are_split_into_1500_and_297_rows():
    train, test = Digits().read()
    assert (len(train), len(test)) == (1500, 297)
    assert (train.x_shape, train.levels.dtype, train.max_level) == ((1, 8, 8), torch.uint8, 16.0)
    assert (train.levels.min(), train.levels.max()) == (0, 16)


def test_digits_are_stratified():
    train, test = Digits().read()
    counts = torch.cat([train.labels, test.labels]).bincount()
    assert ((test.labels.bincount() - counts * 297 / 1797).abs() < 1).all()
    assert ((train.labels.bincount() - counts * 1500 / 1797).abs() < 1).all()


def test_digits_are_split_the_same_way_every_time_and_cover_the_data():
    from sklearn.datasets import load_digits

    first, again = Digits().read(), Digits().read()
    for rows, same in zip(first, again, strict=True):
        assert torch.equal(rows.levels, same.levels)
        assert torch.equal(rows.labels, same.labels)
    parts = torch.cat([rows.levels for rows in first]).flatten(1).tolist()
    assert sorted(parts) == sorted(load_digits().data.astype(int).tolist())


def test_one_hot_holds_each_unit_vector_the_same_number_of_times():
    train, test = OneHot(num_classes=4, rows_per_class=500).read()
    assert torch.equal(train.levels, torch.eye(4, dtype=torch.uint8)[train.labels])
    assert train.labels.bincount().tolist() == test.labels.bincount().tolist() == [500] * 4


# The user's own arrays


def save(path, array, labels=None):
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        np.savez(path, **({"x": array} if labels is None else {"x": array, "y": labels}))
    return str(path)


def numbered(num_rows, dtype=np.float64):
    return np.arange(num_rows * 2).reshape(num_rows, 2).astype(dtype)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    ("dtype", "max_level"),
    [
        (np.uint8, 255.0),
        (np.uint16, 65535.0),
        (np.int64, 39.0),
        (np.float32, 1.0),
        (np.float64, 1.0),
        (np.bool_, 1.0),
    ],
)
def test_an_array_file_knows_its_highest_level_by_its_dtype(tmp_path, suffix, dtype, max_level):
    array = numbered(20, dtype)
    train, test = ArrayFile(save(tmp_path / f"my.data{suffix}", array), test_fraction=0.25).read()
    assert (len(train), len(test), train.max_level, test.max_level) == (15, 5, max_level, max_level)
    rows = torch.cat([train.batch(slice(None)), test.batch(slice(None))])
    assert sorted(rows.tolist()) == sorted(array.astype(float).tolist())


def test_an_array_file_is_split_by_its_seed_and_labels_stay_with_their_rows(tmp_path):
    path = save(tmp_path / "x.npz", numbered(20), np.arange(20))
    train, test = ArrayFile(path, 0.3, seed=1).read()
    again, other = ArrayFile(path, 0.3, seed=1).read(), ArrayFile(path, 0.3, seed=2).read()
    assert torch.equal(again[0].levels, train.levels)
    assert not torch.equal(other[0].levels, train.levels)
    for rows in (train, test):
        assert torch.equal(rows.levels[:, 0], 2.0 * rows.labels)
    assert not torch.equal(train.labels, train.labels.sort().values[: len(train)])


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.99, 1.0, -0.5, 1.5])
@pytest.mark.parametrize("name", ["test_fraction", "validation_fraction"])
def test_a_fraction_must_leave_rows_on_both_sides(tmp_path, fraction, name):
    source = ArrayFile(
        save(tmp_path / "x.npy", numbered(20)), fraction if name == "test_fraction" else 0.5
    )
    if (name, fraction) == ("validation_fraction", 0.0):
        assert load_splits(source, Identity(), fraction).validation is None
        return
    with pytest.raises(
        ValueError,
        match=rf"'{name}' must (be a share of the rows between 0 and 1|leave rows on .*), got {fraction}",
    ):
        load_splits(source, Identity(), fraction if name == "validation_fraction" else 0.0)


def test_a_single_row_cannot_be_split(tmp_path):
    source = ArrayFile(save(tmp_path / "x.npy", numbered(1)), 0.5)
    with pytest.raises(
        ValueError, match="^'data' must have at least 2 rows for a split by 'test_f"
    ):
        source.read()


def test_rows_without_an_axis_are_told_both_shapes_that_can_be_meant():
    with pytest.raises(ValueError, match=r"reshape it to \(1, 6\) for one row, or to \(-1, 1\)"):
        Rows(np.arange(6.0), Identity())


def test_an_error_of_torchvision_without_words_leaves_no_name_of_a_class(data_folder):
    raw = data_folder / "MNIST" / "raw"
    write_idx(raw)
    (raw / FILES[0]).write_bytes(b"junk" * 8)
    with pytest.raises(ValueError, match=r"belong in .* \(another place: set PYRO_VAE_DATA\)\.$"):
        MNIST().read()


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "none.npy"
    with pytest.raises(
        ValueError,
        match=rf"'path' must .*, got {re.escape(str(path))}: No such file or directory\.$",
    ):
        ArrayFile(str(path)).read()


@pytest.mark.parametrize(
    "content", [b"", b"1,2\n3,4\n", b"\x93NUMPY\x01\x00", b"PK\x03\x04 no archive"]
)
def test_what_is_no_array_file_is_refused(tmp_path, content):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"'path' must be a .npy or .npz file of numbers, got"
    ) as caught:
        ArrayFile(str(path)).read()
    assert "\n" not in str(caught.value)
    assert "pickle" not in str(caught.value)
    del caught
    gc.collect()  # a file left open would warn now


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_array_of_objects_is_refused_unread(tmp_path, suffix):
    path = save(tmp_path / f"x{suffix}", np.array([[{}], [1]], dtype=object))
    with pytest.raises(ValueError, match=r"'path' must .*: it holds objects of Python\."):
        ArrayFile(path).read()


@pytest.mark.parametrize(
    "array", [np.array([["a"], ["b"]]), np.ones((2, 2), dtype=complex)], ids=["text", "complex"]
)
def test_an_array_of_other_than_real_numbers_is_refused(tmp_path, array):
    with pytest.raises(ValueError, match=r"'path' must hold an array of real numbers, got"):
        ArrayFile(save(tmp_path / "x.npy", array)).read()


def test_an_archive_without_x_is_refused_and_says_what_it_holds(tmp_path):
    np.savez(tmp_path / "x.npz", images=numbered(3), names=np.arange(3))
    with pytest.raises(
        ValueError, match=r"'path' must hold an array named x, got images, names in"
    ):
        ArrayFile(str(tmp_path / "x.npz")).read()


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8", "i2", "u2"])
def test_labels_may_be_vectors_which_stay_with_their_rows(tmp_path, dtype):
    vectors = np.arange(60).reshape(20, 3).astype(dtype)
    splits = load_splits(
        ArrayFile(save(tmp_path / "x.npz", numbered(20), vectors), 0.3), Identity(), 0.2
    )
    for rows in splits:
        assert rows.labels.shape == (len(rows), 3)
        assert torch.equal(1.5 * rows.levels[:, 0], rows.labels[:, 0].double())
        assert torch.equal(rows.context(3), rows.labels)


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(19),
        np.zeros((19, 2)),
        np.zeros((20, 2, 2)),
        np.array(3),
        np.zeros(20),
        np.zeros((20, 2), dtype="c8"),
    ],
    ids=["short", "short vectors", "3-D", "0-D", "real", "complex vectors"],
)
def test_labels_must_be_a_whole_number_or_a_vector_for_each_row(tmp_path, labels):
    sentence = (
        r"'path' must hold a whole number y for each row of x, or a vector of real numbers, got"
    )
    with pytest.raises(ValueError, match=sentence):
        ArrayFile(save(tmp_path / "x.npz", numbered(20), labels)).read()


def test_labels_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'path' must .* with strings such as 'cat'"):
        ArrayFile(save(tmp_path / "x.npz", numbered(20), np.array(["cat"] * 20))).read()


@pytest.mark.parametrize("labels", [None, np.arange(3)], ids=["alone", "with labels"])
def test_a_number_alone_is_no_data(tmp_path, labels):
    with pytest.raises(ValueError, match=r"'(data|path)' must"):
        ArrayFile(save(tmp_path / "x.npz", np.array(3.0), labels)).read()


@pytest.mark.parametrize("dtype", [">f4", ">i2", "f2"])
def test_numbers_of_any_byte_order_and_width_are_read(tmp_path, dtype):
    train, _ = ArrayFile(save(tmp_path / "x.npy", numbered(20, dtype))).read()
    assert (train.batch(slice(None))[:, 1] - train.batch(slice(None))[:, 0] == 1).all()


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.full((20, 2), np.nan), "'data' must be finite, got NaN or infinity in 20 of 20 rows"),
        (np.zeros((0, 2), dtype=np.int64), "with at least one row, got"),
        (np.arange(20.0), r"'data' must have the shape \(rows, ...\)"),
        (np.ones((20, 2)), "'data' must vary from row to row"),
        (numbered(20) / 10, "'data' must lie in 0 ... 1 for the transform UnitInterval"),
        (numbered(20, np.int64) - 5, "'data' must lie in 0 ... 34 for the transform UnitInterval"),
    ],
)
def test_unusable_numbers_are_refused_when_the_splits_are_loaded(tmp_path, array, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_splits(ArrayFile(save(tmp_path / "x.npy", array)), UnitInterval())


def test_validation_rows_come_from_the_training_rows_by_a_seed():
    plain = load_splits(Digits(), Identity())
    splits, again = (load_splits(Digits(), Identity(), 0.2, seed=3) for _ in range(2))
    other = load_splits(Digits(), Identity(), 0.2, seed=4)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1200, 300, 297)
    assert torch.equal(splits.test.levels, plain.test.levels)
    assert torch.equal(splits.validation.levels, again.validation.levels)
    assert not torch.equal(splits.validation.levels, other.validation.levels)
    parts = torch.cat([splits.train.levels, splits.validation.levels]).flatten(1).tolist()
    assert sorted(parts) == sorted(plain.train.levels.flatten(1).tolist())


@pytest.mark.parametrize(
    ("source", "labels", "context_dim", "num_words"),
    [("file", True, 0, 1), ("file", True, 3, 0), ("file", False, 0, 0), ("digits", True, 0, 0)],
)
def test_labels_in_a_file_that_no_network_takes_are_named(
    tmp_path, recwarn, source, labels, context_dim, num_words
):
    path = save(tmp_path / "x.npz", numbered(20), np.arange(20) if labels else None)
    rows = ArrayFile(path).read()[0]
    warn_of_unused_labels(ArrayFile(path) if source == "file" else Digits(), rows, context_dim)
    words = [str(warning.message) for warning in recwarn]
    assert len(words) == num_words
    assert all("is not used, since no network takes a context" in word for word in words)


# torchvision's files


def write_idx(folder, num_train=6, num_test=3):
    """The four files of an MNIST of a few rows: row i holds the level i everywhere, and its label is i."""
    folder.mkdir(parents=True)
    for part, count in (("train", num_train), ("t10k", num_test)):
        images = np.arange(count, dtype=np.uint8).repeat(28 * 28).tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4I", 0x803, count, 28, 28) + images
        )
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 0x801, count) + bytes(range(count))
        )


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    """A data folder of the test's own, and no network."""
    from torchvision.datasets import mnist

    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path))
    monkeypatch.setattr(mnist, "download_and_extract_archive", offline)
    return tmp_path


@pytest.mark.parametrize(
    "source", [MNIST(), FashionMNIST(), KMNIST()], ids=lambda source: source.name
)
def test_files_that_are_there_are_read_without_a_download(data_folder, source):
    write_idx(data_folder / source.name / "raw")
    train, test = source.read()
    assert (train.levels.shape, test.levels.shape) == ((6, 1, 28, 28), (3, 1, 28, 28))
    assert (train.levels.dtype, train.max_level) == (torch.uint8, 255.0)
    assert train.levels[:, 0, 5, 7].tolist() == train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert test.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused_with_the_folder(data_folder, name):
    raw = data_folder / "MNIST" / "raw"
    write_idx(raw)
    (raw / name).write_bytes((raw / name).read_bytes()[:-2])
    with pytest.raises(
        ValueError, match=rf"MNIST files are truncated .*belong in {re.escape(str(raw))}"
    ) as caught:
        MNIST().read()
    assert "\n" not in str(caught.value)
    assert sorted(file.name for file in raw.iterdir()) == sorted(FILES)


def test_absent_files_without_a_network_are_named_and_nothing_is_left_behind(data_folder):
    with pytest.raises(
        ValueError, match="MNIST files are absent and cannot be downloaded"
    ) as caught:
        MNIST().read()
    for name in (*FILES, str(data_folder / "MNIST" / "raw"), "PYRO_VAE_DATA"):
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(data_folder.iterdir()) == []


def test_one_absent_file_is_not_called_truncated(data_folder):
    raw = data_folder / "MNIST" / "raw"
    write_idx(raw)
    (raw / FILES[0]).unlink()
    with pytest.raises(ValueError, match="MNIST files are absent"):
        MNIST().read()
    assert sorted(file.name for file in raw.iterdir()) == sorted(FILES[1:])
