"""New rows for a run are found by the names that its data had, whatever the order in their file."""

import numpy as np
import pytest
import scipy.sparse
import torch
import yaml

from pyro_vae import load_data, rows_like
from pyro_vae.runs import RunFolder, load_settings
from pyro_vae.runs.settings import instantiate, read_preset, settings_parser

TABLE = "size,kind,lab,id\n" + "".join(
    f"{number}.5,{'cab'[number % 3]},{'xy'[number % 2]},{number}\n" for number in range(12)
)


def run_of(folder, class_name, **arguments):
    """A run folder whose data were recorded; it has no weights."""
    tree, _ = read_preset("digits")
    tree["data"]["source"] = {"class_path": f"pyro_vae.{class_name}", "init_args": arguments}
    parser = settings_parser()
    settings = instantiate(parser, parser.parse_object(tree))
    rows = settings.data.read()
    run = RunFolder(folder)
    run.begin(yaml.safe_dump(tree), tuple(rows[0].x_shape), settings.data.record(*rows))
    return folder


@pytest.fixture
def run(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    given = {"label": "lab", "context": ["kind"], "ignored": ["id"]}
    return run_of(tmp_path / "run", "TableFile", path=str(tmp_path / "t.csv"), **given)


def test_the_record_keeps_names_and_finds_the_same_data(run):
    names = RunFolder(run).info().data.names
    assert (names.columns, names.classes) == (("size",), ("x", "y"))
    assert names.contexts == ("kind=a", "kind=b", "kind=c")
    assert load_data(run).train.names == names
    assert load_settings(run).data.source.label == "lab"


def test_other_names_are_other_data(run, tmp_path):
    (tmp_path / "t.csv").write_text(TABLE.replace("size", "mass"))
    with pytest.raises(ValueError, match="'data' must be those that .* was trained on"):
        load_data(run)


def test_columns_and_categories_are_those_of_the_run(run, tmp_path):
    (tmp_path / "new.csv").write_text("more,lab,kind,size\n7,y,b,2.5\n8,y,b,3.5\n")
    rows = rows_like(run, tmp_path / "new.csv")
    assert rows.levels.tolist() == [[2.5], [3.5]]
    assert rows.context(3).tolist() == [[0, 1, 0], [0, 1, 0]]
    assert rows.labels.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind,mass\na,1\n", "must have the columns of the run, got .*new.csv without size"),
        ("size,lab\n1,x\n", "'context' must be one of the columns size, lab of .*, got 'kind'"),
        ("size,kind\n1,d\n", "a column 'kind' with the categories a, b, c of the run, got 'd'"),
        ("size,kind,lab\n1,a,z\n", "a column 'lab' with the categories x, y of the run, got 'z'"),
    ],
)
def test_a_file_without_them_is_refused(run, tmp_path, text, sentence):
    (tmp_path / "new.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        rows_like(run, tmp_path / "new.csv")


def test_a_file_of_another_kind_has_no_names_to_check(run, tmp_path):
    np.save(tmp_path / "x.npy", np.array([[2.5], [3.5]]))
    assert rows_like(run, tmp_path / "x.npy").levels.tolist() == [[2.5], [3.5]]
    scipy.sparse.save_npz(tmp_path / "s.npz", scipy.sparse.eye_array(2))
    with pytest.raises(ValueError, match=r"rows of the shape \(1,\), as the run, got \(2,\)"):
        rows_like(run, tmp_path / "s.npz")


def test_a_folder_of_images_that_moved_with_the_run_is_found(tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "old" / "images"
    for number in range(6):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.full((4, 4), 40 * number, dtype=np.uint8)
        image.fromarray(pixels).save(folder / "ab"[number % 2] / f"{number}.png")
    run_of(tmp_path / "old" / "run", "ImageFolder", path=str(folder))
    expected = load_data(tmp_path / "old" / "run").test
    (tmp_path / "old").rename(tmp_path / "new")
    found = load_data(tmp_path / "new" / "run").test
    assert torch.equal(found.levels, expected.levels)
    assert rows_like(tmp_path / "new" / "run", tmp_path / "new" / "images").class_names == (
        "a",
        "b",
    )
