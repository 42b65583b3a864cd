"""Each reader gives the rows, labels and names that its file holds, and refuses other files in one sentence."""

import builtins
import re

import numpy as np
import pytest
import scipy.sparse
import torch

from pyro_vae import (
    AnnDataFile,
    ArrayFile,
    HDF5File,
    Identity,
    ImageFolder,
    Rows,
    SparseFile,
    TableFile,
    TensorFile,
    load_splits,
    source_for,
)
from pyro_vae.data import SparseMatrix, Storage, types_found

NAN = float("nan")
COUNTS = np.array([[0, 3, 0], [1, 0, 0], [0, 0, 2], [4, 0, 5]], dtype=np.int64)
TABLE = """size,species,age,lab,name
1.5,cat,3,north,a
2.5,dog,,south,b
,cat,7,north,c
4.5,ant,1,south,d
"""


def write_table(folder, text=TABLE, name="t.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def all_levels(rows):
    return rows.levels[slice(None)]


def equal(found, expected):
    return torch.equal(found.nan_to_num(-9), torch.as_tensor(expected).to(found).nan_to_num(-9))


def split_again(source):
    """All rows of a source from its two sides."""
    return torch.cat([rows.levels[slice(None)] for rows in source.read()])


# Tables


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", " "])
@pytest.mark.parametrize("header", ["", "a{0}b c{0}d\n", "0{0}1{0}2\n"])
@pytest.mark.parametrize("is_quoted", [False, True])
def test_a_table_of_numbers_is_read_without_pandas(
    tmp_path, monkeypatch, delimiter, header, is_quoted
):
    without(monkeypatch, "pandas")
    header = (
        header.format(delimiter) if delimiter != " " else header.replace("b c", "bc").format(" ")
    )
    cells = [[1.5, -2, 3e4], [4, 5, 6.25]]
    mark = '"{}"' if is_quoted and delimiter != " " else "{}"
    lines = [delimiter.join(mark.format(cell) for cell in row) for row in cells]
    rows = TableFile(write_table(tmp_path, header + "\n".join(lines))).rows()
    assert all_levels(rows).tolist() == cells
    expected = header.strip().split(delimiter) if header else ["column 1", "column 2", "column 3"]
    assert list(rows.column_names) == expected


def test_empty_cells_of_numbers_are_missing_and_need_no_pandas(tmp_path, monkeypatch):
    without(monkeypatch, "pandas")
    rows = TableFile(write_table(tmp_path, "a,b\n1,\nNA,2\n3,nan\n")).rows()
    assert equal(all_levels(rows), [[1, NAN], [NAN, 2], [3, NAN]])
    assert types_found(rows) == "2 columns: 2 whole ≥ 0, 50.0% of the cells missing"


def test_a_table_of_whole_numbers_knows_its_highest_level(tmp_path):
    rows = TableFile(write_table(tmp_path, "a,b\n1,2\n7,4\n")).rows()
    assert (rows.levels.dtype, rows.max_level) == (torch.int64, 7)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_have_their_roles_and_strings_become_categories(tmp_path, kind):
    path = write_table(tmp_path)
    if kind == "parquet":
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        pandas.read_csv(path).to_parquet(tmp_path / "t.parquet")
        path = str(tmp_path / "t.parquet")
    rows = TableFile(path, label="lab", context=["species"], ignored=["name"]).rows()
    assert equal(all_levels(rows), [[1.5, 3], [2.5, NAN], [NAN, 7], [4.5, 1]])
    assert rows.column_names == ("size", "age")
    assert (rows.labels.tolist(), rows.class_names) == ([0, 1, 0, 1], ("north", "south"))
    assert rows.context_names == ("species=ant", "species=cat", "species=dog")
    assert rows.contexts.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    other = TableFile(path, ignored=["name"]).rows()
    names = ("size", "species=ant", "species=cat", "species=dog", "age", "lab=north", "lab=south")
    assert set(other.column_names) == set(names)
    place = other.column_names.index("species=ant")
    assert equal(
        all_levels(other)[:, place : place + 3], [[0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    )
    assert other.categories == {"species": ("ant", "cat", "dog"), "lab": ("north", "south")}
    assert types_found(other) == (
        "4 columns: 1 real, 1 whole ≥ 0, 2 categories of 3 and 2, 12.5% of the cells missing"
    )


def test_numbers_and_strings_stand_side_by_side_in_a_context(tmp_path):
    path = write_table(tmp_path, "x,depth,lab\n1,0.5,b\n2,1.5,a\n")
    rows = TableFile(path, context=["depth", "lab"]).rows()
    assert rows.context_names == ("depth", "lab=a", "lab=b")
    assert rows.contexts.tolist() == [[0.5, 0, 1], [1.5, 1, 0]]


def test_an_index_without_a_name_is_left_out(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.5, 2.5], "kind": ["x", "y"]})
    frame.to_csv(tmp_path / "t.csv")
    assert TableFile(str(tmp_path / "t.csv")).rows().column_names == ("a", "kind=x", "kind=y")
    frame[["a"]].to_csv(tmp_path / "n.csv")
    assert TableFile(str(tmp_path / "n.csv")).rows().column_names == ("a",)


def test_further_rows_have_the_columns_and_categories_of_the_run(tmp_path):
    source = TableFile(write_table(tmp_path), label="lab", context=["species"], ignored=["name"])
    known = source.rows().names
    path = write_table(tmp_path, "new,age,species,size\n0,5,dog,9.5\n", "new.csv")
    rows = source.further(path, known)
    assert rows.levels.tolist() == [[9.5, 5]]
    assert rows.contexts.tolist() == [[0, 0, 1]]
    assert (rows.labels, rows.class_names) == (None, ("north", "south"))
    for text, sentence in {
        "age,species\n5,dog\n": "must have the columns of the run, got .* without size",
        "age,size\n5,1\n": "'context' must be one of the columns age, size of .*, got 'species'",
        "age,size,species\n5,1,cow\n": "the categories ant, cat, dog of the run, got 'cow'",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            source.further(write_table(tmp_path, text, "other.csv"), known)


def test_categories_of_further_rows_have_the_numbers_of_the_run(tmp_path):
    source = TableFile(write_table(tmp_path, "kind,x\nb,1\nc,2\na,3\n"))
    known = source.rows().names
    rows = source.further(write_table(tmp_path, "kind,x\nc,1\n", "new.csv"), known)
    assert rows.levels.tolist() == [[0, 0, 1, 1]]
    assert rows.column_names == ("kind=a", "kind=b", "kind=c", "x")
    assert rows.categories == {"kind": ("a", "b", "c")}


def test_a_missing_category_is_missing_in_each_of_its_numbers(tmp_path):
    rows = TableFile(write_table(tmp_path, "kind,x\nb,1.5\n,2\na,\n")).rows()
    assert equal(all_levels(rows), [[0, 1, 1.5], [NAN, NAN, 2], [1, 0, NAN]])
    assert types_found(rows) == ("2 columns: 1 real, 1 category of 2, 33.3% of the cells missing")


WRONG_TABLES = {
    "": "it is empty",
    "a,b\n": "it has a header and no rows",
    "a,a\n1,2\n": "its header has 'a' twice",
    "a,b\n1,2\n1,2,3\n": "the number of columns changed",
    "a,b\n1,2,3\n4,5,6\n": "it has 2 names for 3 columns",
    "a,b\n1,\n2,\n3,\n,\n": None,
    "a;b\n1,5;2\n2,5;3\n": "have decimal points, got '1,5' in 'a' of .*: write 1.5",
    "a\n" + "\n".join(map(str, range(20))) + "\nlost\n": "got 'lost' among the numbers of 'a'",
    "a,b\n" + "\n".join(f"{n},name{n}" for n in range(30)): "got 30 different strings such as 'name0' in 'b' of .*: name it in 'ignored'",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG_TABLES)
def test_a_table_that_cannot_be_read_is_told_in_one_sentence(tmp_path, text):
    source = TableFile(write_table(tmp_path, text))
    if WRONG_TABLES[text] is None:
        source.rows()
        return
    with pytest.raises(ValueError, match=f"^'path' must .*{WRONG_TABLES[text]}") as caught:
        source.rows()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        ({"label": "specis"}, "'label' must be one of the columns size, species, age, lab, name of .*, got 'specis'; the nearest is 'species'"),
        ({"context": ["lab", "agee"]}, "'context' must be one of .*, got 'agee'; the nearest is 'age'"),
        ({"ignored": ["x"]}, "'ignored' must be one of .*, got 'x'"),
        ({"label": "size"}, "'label' must be a column of classes, .* got 1.5 in 'size'"),
        ({"label": "age"}, "'label' must be a column of classes, .* got a missing cell in 'age'"),
        ({"context": ["age"]}, "'context' must be columns without missing cells, got some in 'age'"),
        ({"ignored": ["size", "age", "lab", "name", "species"]}, "'path' must have a column of numbers for x"),
    ],
)  # fmt: skip
def test_a_role_of_another_column_is_refused(tmp_path, roles, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        TableFile(write_table(tmp_path), **roles).rows()


def test_a_column_has_one_role():
    with pytest.raises(ValueError, match="must name different columns, got 'a' twice"):
        TableFile("t.csv", label="a", ignored=["a"])
    with pytest.raises(ValueError, match="'context' must be a list of strings, got 'lab'"):
        TableFile("t.csv", context="lab")
    with pytest.raises(ValueError, match="'label' must be the name of a column, got 3"):
        TableFile("t.csv", label=3)


def test_dates_are_told(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = str(tmp_path / "t.parquet")
    pandas.DataFrame(
        {"a": [1, 2], "day": pandas.to_datetime(["2020-01-01", "2020-01-02"])}
    ).to_parquet(path)
    with pytest.raises(ValueError, match="it has dates in 'day': turn them into numbers"):
        TableFile(path).rows()


def without(monkeypatch, package):
    """Make an import of a package fail."""
    real_import = builtins.__import__

    def refusing(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refusing)


@pytest.mark.parametrize(
    ("package", "extra", "source"),
    [("pandas", "table", TableFile), ("anndata", "anndata", AnnDataFile), ("h5py", "hdf5", HDF5File)],
)  # fmt: skip
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    tmp_path, monkeypatch, package, extra, source
):
    without(monkeypatch, package)
    sentence = rf"^'path' must .* needs {package}, which is not installed: pip install 'pyro_vae\[{extra}\]'\.$"
    with pytest.raises(ValueError, match=sentence):
        source(write_table(tmp_path)).rows()


# Arrays, tensors and sparse matrices


def save_sparse(folder, matrix, name="s.npz"):
    scipy.sparse.save_npz(folder / name, matrix)
    return str(folder / name)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr"])
def test_a_sparse_file_stays_sparse_on_both_sides(tmp_path, form):
    source = SparseFile(save_sparse(tmp_path, scipy.sparse.coo_matrix(COUNTS).asformat(form)), 0.5)
    train, test = source.read()
    assert isinstance(train.levels, SparseMatrix)
    assert (len(train), len(test), train.max_level) == (2, 2, 5)
    np.save(tmp_path / "dense.npy", COUNTS)
    for rows, dense in zip(
        (train, test), ArrayFile(str(tmp_path / "dense.npy"), 0.5).read(), strict=True
    ):
        assert torch.equal(all_levels(rows), all_levels(dense))


@pytest.mark.parametrize("form", ["tensor", "pair", "dict"])
def test_a_file_of_tensors_gives_x_and_y(tmp_path, form):
    x, y = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    held = {"tensor": x, "pair": (x, y), "dict": {"y": y, "x": x, "note": "mine"}}[form]
    torch.save(held, tmp_path / "x.pt")
    rows = TensorFile(str(tmp_path / "x.pt")).rows()
    assert torch.equal(rows.levels, x)
    assert rows.labels is None if form == "tensor" else torch.equal(rows.labels, y)


class Runs:
    """An object whose unpickling would run a function."""

    def __reduce__(self):
        return (print, ("code of the file was run",))


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        (Runs(), "holds objects other than tensors, whose code is not run"),
        ({"images": torch.ones(2)}, "it holds images, and no x"),
        ({"x": "a"}, "it holds 'a' in place of tensors"),
        ([torch.ones(2, 2)] * 3, "it holds a list of 3 in place of tensors"),
        ((torch.ones(4, 2), torch.ones(3)), "'path' must hold a whole number y for each row"),
        ({"x": None}, "it holds None in place of x"),
    ],
)
def test_a_file_of_torch_without_such_tensors_is_refused(tmp_path, capsys, held, sentence):
    torch.save(held, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=f"^('path' must .*)?{sentence}"):
        TensorFile(str(tmp_path / "x.pt")).rows()
    assert capsys.readouterr().out == ""


# anndata and HDF5


@pytest.fixture
def annotated(tmp_path):
    anndata = pytest.importorskip("anndata")
    pandas = pytest.importorskip("pandas")
    obs = pandas.DataFrame(
        {"kind": ["b", "a", "b", "c"], "batch": pandas.Categorical(["1", "2", "2", "1"])},
        index=list("wxyz"),
    )  # fmt: skip
    data = anndata.AnnData(
        X=scipy.sparse.csr_matrix(COUNTS.astype(np.float32)),
        obs=obs,
        var=pandas.DataFrame(index=["g1", "g2", "g3"]),
        layers={"counts": COUNTS},
    )
    data.write_h5ad(tmp_path / "a.h5ad")
    return str(tmp_path / "a.h5ad")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_annotated_matrix_gives_labels_and_contexts_from_its_columns(annotated):
    source = source_for(annotated, label="kind", context=["batch"], ignored=["g2"])
    assert isinstance(source, AnnDataFile)
    rows = source.rows()
    assert isinstance(rows.levels, SparseMatrix)
    assert torch.equal(all_levels(rows), torch.from_numpy(COUNTS[:, [0, 2]]).float())
    assert (rows.column_names, rows.class_names) == (("g1", "g3"), ("a", "b", "c"))
    assert rows.labels.tolist() == [1, 0, 1, 2]
    assert rows.context_names == ("batch=1", "batch=2")
    assert rows.contexts.argmax(1).tolist() == [0, 1, 1, 0]
    layer = AnnDataFile(annotated, layer="counts").rows()
    assert torch.equal(layer.levels, torch.from_numpy(COUNTS))
    further = source.further(annotated, rows.names)
    assert torch.equal(all_levels(further), all_levels(rows))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layer": "cuonts"}, "'layer' must be one of counts of .*, got 'cuonts', .*nearest is 'counts'"),
        ({"label": "knd"}, "'label' must be one of the columns kind, batch of .*, got 'knd'"),
        ({"ignored": ["g7"]}, "'ignored' must be one of the columns g1, g2, g3 of .*, got 'g7'"),
    ],
)  # fmt: skip
def test_an_annotated_matrix_without_what_is_named_is_refused(annotated, options, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        AnnDataFile(annotated, **options).rows()


@pytest.fixture
def hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["train/images"] = np.arange(4 * 2 * 5 * 3, dtype=np.uint8).reshape(4, 5, 2, 3)
        file["train/species"] = ["cat", "dog", "cat", "ant"]
        file["depth"] = np.array([[0.5], [1.5], [2.5], [3.5]])
        file["empty"] = np.zeros(3)
    return str(tmp_path / "d.h5")


def test_an_hdf5_file_gives_its_arrays_by_name(hdf5):
    options = {"label": "train/species", "context": ["depth"], "channels_last": True}
    rows = source_for(hdf5, dataset="/train/images", **options).rows()
    assert (rows.x_shape, rows.levels.dtype, rows.max_level) == ((3, 5, 2), torch.uint8, 255)
    assert (rows.labels.tolist(), rows.class_names) == ([1, 2, 1, 0], ("ant", "cat", "dog"))
    assert rows.contexts.tolist() == [[0.5], [1.5], [2.5], [3.5]]
    assert torch.equal(HDF5File(hdf5, **options).rows().levels, rows.levels)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dataset": "train/image"}, "it has no array train/image, but .*nearest is 'train/images'"),
        ({}, r"it has 2 arrays \(depth, train/images\) with rows of numbers: name one by 'dataset'"),
        ({"dataset": "depth", "label": "train/images"}, r"in place of one axis"),
        ({"dataset": "depth", "label": "empty"}, "'labels' must have the shape"),
        ({"dataset": "train/species"}, "'path' must hold an array of real numbers"),
    ],
)  # fmt: skip
def test_an_hdf5_file_without_what_is_named_is_refused(hdf5, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        HDF5File(hdf5, **options).rows()


# Folders of images


def picture(folder, name, pixels, mode=None):
    image = pytest.importorskip("PIL.Image")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(np.asarray(pixels), mode).save(path)


def colours(number, height=4, width=4):
    return (
        (np.arange(height * width * 3) * (number + 1) % 251)
        .astype(np.uint8)
        .reshape(height, width, 3)
    )


@pytest.mark.parametrize("in_memory", [None, True, False])
def test_a_folder_of_images_keeps_its_levels(tmp_path, in_memory):
    for number in range(4):
        picture(tmp_path, f"{number}.png", colours(number))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    rows = source_for(tmp_path, in_memory=in_memory, test_fraction=0.5).rows()
    assert isinstance(rows.levels, Storage) is (in_memory is False)
    expected = torch.stack([torch.from_numpy(colours(number)) for number in range(4)])
    assert torch.equal(all_levels(rows), expected.permute(0, 3, 1, 2))
    assert (rows.levels.dtype, rows.max_level, rows.labels) == (torch.uint8, 255, None)
    train, _ = ImageFolder(str(tmp_path), in_memory=in_memory, test_fraction=0.5).read()
    assert (len(train), train.x_shape) == (2, (3, 4, 4))


def test_class_folders_give_labels_and_their_names(tmp_path):
    for number, kind in enumerate(["cat", "ant", "cat", "dog"]):
        picture(tmp_path, f"{kind}/deep/{number}.png", colours(number))
    source = ImageFolder(str(tmp_path))
    rows = source.rows()
    assert rows.class_names == ("ant", "cat", "dog")
    assert torch.equal(rows.levels[0], torch.from_numpy(colours(1)).permute(2, 0, 1))
    assert rows.labels.tolist() == [0, 1, 1, 2]
    picture(tmp_path / "new", "dog/7.png", colours(7))
    further = source.further(str(tmp_path / "new"), rows.names)
    assert (further.labels.tolist(), further.class_names) == ([2], rows.class_names)
    picture(tmp_path / "new", "cow/8.png", colours(8))
    with pytest.raises(
        ValueError, match="it has a class folder cow, and the run has ant, cat, dog"
    ):
        source.further(str(tmp_path / "new"), rows.names)


def test_images_are_scaled_to_fill_a_size_and_cut(tmp_path):
    left_and_right = np.zeros((8, 24, 3), dtype=np.uint8)
    left_and_right[:, 8:16] = 200
    picture(tmp_path, "wide.png", left_and_right)
    picture(tmp_path, "tall.png", left_and_right.transpose(1, 0, 2).copy())
    rows = ImageFolder(str(tmp_path), size=4).rows()
    assert rows.x_shape == (3, 4, 4)
    assert ((rows.levels[:, :, 1:3, 1:3].int() - 200).abs() < 4).all()
    assert ImageFolder(str(tmp_path), size=[2, 3]).rows().x_shape == (3, 2, 3)


@pytest.mark.parametrize("grey", [None, True, False])
def test_images_are_grey_or_coloured(tmp_path, grey):
    picture(tmp_path, "a.png", np.full((2, 2), 7, dtype=np.uint8))
    picture(tmp_path, "b.png", np.full((2, 2), 9, dtype=np.uint8))
    rows = ImageFolder(str(tmp_path), grey=grey).rows()
    assert rows.x_shape == ((3, 2, 2) if grey is False else (1, 2, 2))
    assert rows.levels[:, 0, 0, 0].tolist() == [7, 9]


def test_sixteen_bits_become_eight_and_are_not_blank(tmp_path):
    levels = np.array([[0, 257 * 100], [257 * 200, 65_535]], dtype=np.uint16)
    picture(tmp_path, "a.png", levels)
    assert ImageFolder(str(tmp_path)).rows().levels.tolist() == [[[[0, 100], [200, 255]]]]


def corrupt(folder):
    picture(folder, "a.png", colours(0, 64, 64))
    whole = (folder / "a.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])


def no_image(folder):
    picture(folder, "a.png", colours(0))
    (folder / "b.png").write_text("1,2,3")


def two_sizes(folder):
    picture(folder, "a.png", colours(0))
    picture(folder, "b.png", colours(0, 4, 5))


def grey_and_coloured(folder):
    picture(folder, "a.png", np.zeros((2, 2), dtype=np.uint8))
    picture(folder, "b.png", colours(0, 2, 2))


def beside_classes(folder):
    picture(folder, "cat/a.png", colours(0))
    picture(folder, "b.png", colours(0))


FOLDERS = {
    corrupt: r"b\.png cannot be read: .*truncated",
    no_image: r"b\.png cannot be read: it is damaged, or no image",
    two_sizes: r"a\.png has 4 × 4 pixels and b\.png 4 × 5: set 'size'",
    grey_and_coloured: r"b\.png cannot be read: it has colours, and the first image has none: set 'grey'",
    beside_classes: r"b\.png lies beside the class folder cat",
    lambda folder: None: "it holds no images",
}


@pytest.mark.parametrize("make", FOLDERS)
def test_a_folder_that_cannot_be_read_is_told_in_one_sentence(tmp_path, make):
    make(tmp_path)
    start = f"'path' must be a folder of images, got {re.escape(str(tmp_path))}: "
    with pytest.raises(ValueError, match=f"^{start}{FOLDERS[make]}") as caught:
        ImageFolder(str(tmp_path)).rows()
    assert "\n" not in str(caught.value)


def test_a_folder_must_be_there_and_its_size_a_size(tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        ImageFolder(str(tmp_path / "none")).rows()
    with pytest.raises(ValueError, match=r"'size' must be one number or two, .*, got \[1, 2, 3\]"):
        ImageFolder("folder", size=[1, 2, 3])
    with pytest.raises(ValueError, match="'size' must hold positive whole numbers, got 0"):
        ImageFolder("folder", size=0)


# The choice of a reader


def test_the_reader_is_found_by_what_the_file_is_and_not_by_its_name(tmp_path):
    np.save(tmp_path / "a", COUNTS)
    np.savez(tmp_path / "b.npz", x=COUNTS)
    save_sparse(tmp_path, scipy.sparse.csr_matrix(COUNTS))
    torch.save(torch.eye(3), tmp_path / "t.pt")
    torch.save(torch.eye(3), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "tricky.npy").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "spaces.dat").write_text("1 2\n3 4\n")
    kinds = {
        "a.npy": ArrayFile,
        "b.npz": ArrayFile,
        "s.npz": SparseFile,
        "t.pt": TensorFile,
        "old.pt": TensorFile,
        "tricky.npy": TableFile,
        "spaces.dat": TableFile,
    }
    for name, kind in kinds.items():
        (tmp_path / name).rename(tmp_path / (moved := name.replace(".npz", ".bin")))
        source = source_for(tmp_path / moved, test_fraction=0.5)
        assert type(source) is kind
        assert split_again(source).shape[0] == len(source.rows())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"\x1f\x8b\x08\x00", "it is a gzip file: unpack it first"),
        (b"\x89PNG\r\n\x1a\n", "it is one image: give a folder"),
        (b"PK\x03\x04 no archive", "it is a damaged archive"),
        (b'{"x": [1, 2]}', "it is JSON: write its numbers as CSV"),
        (b"\x80\x04\x95\x00\x00", "it is a pickle, whose code is not run: load it yourself"),
        (b"\x00\x01\x02\x03", "its kind is unknown: write its numbers by numpy.save"),
        (b"MATLAB 5.0", "it is a file of MATLAB: read it by scipy.io.loadmat"),
    ],
)
def test_what_cannot_be_read_is_told_with_the_way_to_convert_it(tmp_path, content, words):
    path = tmp_path / "data.bin"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=f"^'path' must be a folder of images, or .*: {words}"
    ) as caught:
        source_for(path)
    assert "\n" not in str(caught.value)


def test_a_path_must_exist_and_be_a_path(tmp_path):
    with pytest.raises(ValueError, match=r"got .*none\.csv: No such file or directory\.$"):
        source_for(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="'path' must be the path of a file or folder, got 3"):
        source_for(3)


def test_an_option_that_the_reader_lacks_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", COUNTS)
    with pytest.raises(
        ValueError, match=r"^'label' must be left out for .*a\.npy, which ArrayFile reads with"
    ):
        source_for(tmp_path / "a.npy", label="kind")


@pytest.mark.parametrize(
    "source", [ArrayFile, SparseFile, TableFile, TensorFile, HDF5File, AnnDataFile]
)
def test_a_file_of_another_kind_is_never_called_pickled(tmp_path, source):
    for name, content in {
        "a.csv": b"a,b\nx,\xff\n",
        "b.bin": b"\x00\x01\x02" * 9,
        "c.txt": b"word",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="^'path' must ") as caught:
            source(str(tmp_path / name)).rows()
        assert "pickle" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_sparse_file_of_another_shape_than_the_vae_takes_is_refused(tmp_path):
    from pyro_vae import MLP, VAE, DiagNormalPosterior, PoissonLikelihood, StandardNormalPrior, fit

    likelihood = PoissonLikelihood(MLP(2, [4], 7), 7)
    vae = VAE(StandardNormalPrior(2), likelihood, DiagNormalPosterior(MLP(7, [4], (2, 2)), 7, 2))
    splits = load_splits(
        SparseFile(save_sparse(tmp_path, scipy.sparse.csr_matrix(COUNTS)), 0.5), Identity()
    )
    with pytest.raises(ValueError, match=r"'data' must have rows of the shape \(7,\), got \(3,\)"):
        fit(vae, splits.train)


def test_types_of_columns_are_told():
    table = torch.tensor([[0.5, -1, 3, 0], [1.5, 2, 4, 1]])
    assert (
        types_found(Rows(table, Identity())) == "4 columns: 1 real, 1 whole, 1 whole ≥ 0, 1 0 or 1"
    )
    images = Rows(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), Identity())
    assert types_found(images) == "rows of 3 × 4 × 4, levels up to 255"
