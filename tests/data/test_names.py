"""Rows keep the names of columns, classes and contexts, and refuse names that do not fit."""

from dataclasses import replace

import pytest
import torch

from pyro_vae import Identity, Rows, UnitInterval
from pyro_vae.data import as_rows
from pyro_vae.data.names import Names
from pyro_vae.runs.record import DataRecord, data_record

LEVELS = torch.tensor([[0.0, 3.0], [1.0, 5.0], [2.0, 4.0]])
NAMES = {
    "column_names": ["size=small", "size=tall"],
    "class_names": ["cat", "dog"],
    "context_names": ["lab=a", "lab=b", "depth"],
    "categories": {"size": ["small", "tall"]},
}


def named(**others):
    given = {"labels": torch.tensor([1, 0, 1]), "contexts": torch.arange(9.0).reshape(3, 3)}
    return Rows(LEVELS, Identity(), **given | NAMES | others)


def test_names_stay_with_their_rows():
    rows = named()
    kept = [
        rows.take(slice(1, None)),
        rows.to("cpu"),
        replace(rows, transform=UnitInterval(), max_level=5.0),
        replace(rows, part=2),
    ]
    for other in kept:
        assert other.names == rows.names
    assert rows.column_names == ("size=small", "size=tall")
    assert rows.class_names == ("cat", "dog")
    assert kept[0].contexts.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert kept[0].labels.tolist() == [0, 1]


def test_a_context_of_its_own_comes_before_the_label():
    rows = named()
    assert torch.equal(rows.context(3), rows.contexts)
    assert replace(rows, contexts=None, context_names=None).context(2).tolist() == [
        [0, 1],
        [1, 0],
        [0, 1],
    ]
    with pytest.raises(ValueError, match="finite vectors of 2 numbers, .* got vectors of 3"):
        rows.context(2)


def test_a_new_label_takes_the_place_of_label_and_context():
    rows = as_rows((named(), torch.tensor([4, 0, 2])))
    assert (rows.contexts, rows.class_names, rows.context_names) == (None, None, None)
    assert rows.column_names == ("size=small", "size=tall")


def test_contexts_decide_between_rows_that_are_equal_without_them():
    contexts = torch.tensor([[2.0], [0.0], [1.0]])
    rows = Rows(torch.zeros(3, 2), Identity(), contexts=contexts)
    order = rows.content_order()
    shuffled = rows.take(torch.tensor([2, 0, 1]))
    assert torch.equal(contexts[order], shuffled.contexts[shuffled.content_order()])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({"column_names": ["size"], "categories": None}, "'column_names' must hold 2 names, got 1"),
        ({"column_names": ["size", "size"]}, "'column_names' must hold different names, got 'size' twice"),
        ({"column_names": "ab"}, "'column_names' must be a list of strings, got 'ab'"),
        ({"class_names": ["cat"]}, "'class_names' must name the labels 0 ... 0, got labels up to 1"),
        ({"labels": torch.eye(3)}, "'class_names' must name .* labels that are vectors"),
        ({"class_names": [1, 2]}, "'class_names' must be a list of strings"),
        ({"context_names": ["a"]}, "'context_names' must hold 3 names, got 1"),
        ({"contexts": torch.zeros(2, 3)}, r"'contexts' must have the shape \(3, Y\), got \(2, 3\)"),
        ({"contexts": torch.full((3, 3), torch.nan)}, "'contexts' must be finite"),
        ({"categories": {"mass": ["a"]}}, "'categories' must each have a column .* got no 'mass=a'"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_refused(names, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        named(**names)


def test_a_table_of_pandas_brings_its_names():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"size": [1.0, 2.0], "age": [3, 4]})
    assert as_rows(table).column_names == ("size", "age")
    assert as_rows(pandas.DataFrame(table.to_numpy())).column_names is None
    table.columns = ["size", "size"]
    assert as_rows(table).column_names is None


def test_columns_of_images_have_no_names():
    with pytest.raises(ValueError, match="'column_names' must hold 0 names, got 2"):
        Rows(torch.zeros(3, 1, 2, 2), Identity(), column_names=["a", "b"])


def test_the_record_tells_other_names_and_contexts_apart():
    others = [
        named(),
        named(column_names=["size", "mass"], categories=None),
        named(class_names=["cow", "dog"]),
        named(contexts=torch.ones(3, 3)),
        Rows(LEVELS, Identity()),
    ]
    assert len({data_record(rows, rows).digest for rows in others}) == 5
    for rows in others:
        record = data_record(rows, rows)
        assert DataRecord.from_fields(record.fields()) == record
    assert "names" not in data_record(others[-1], others[-1]).fields()
    assert Names.from_fields(named().names.fields()) == named().names
