"""Results in a notebook: all of them are short, and their text is escaped."""

import importlib
import inspect
import pkgutil
from dataclasses import is_dataclass
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from models import binary_vae

import pyro_vae
from pyro_vae import (
    Epoch,
    Estimate,
    Evaluation,
    Execution,
    Identity,
    Rows,
    Shuffled,
    Training,
    evaluate,
    fit,
)
from pyro_vae.support.tables import html_table, shown_in_short

MOST = 2000  # characters of a repr
SEEN_ELSEWHERE = {"Fit", "Diagnosis", "Evaluation"}
fast = partial(torch.optim.Adam, lr=0.01)
plain = Execution(trace=False)


@pytest.fixture
def binary():
    torch.manual_seed(0)
    return binary_vae()


def results():
    """The NamedTuples and dataclasses of the package that hold tensors or other results."""
    for module in pkgutil.walk_packages(pyro_vae.__path__, "pyro_vae."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            is_own = inspect.isclass(kind) and kind.__module__ == module.name and name[0] != "_"
            fields = getattr(kind, "__annotations__", {}) if is_own else {}
            is_record = is_own and (hasattr(kind, "_fields") or is_dataclass(kind))
            if is_record and any(
                "Tensor" in str(each) or "Rows" in str(each) for each in fields.values()
            ):
                yield kind


ALL = sorted(
    (kind for kind in results() if kind.__name__ not in SEEN_ELSEWHERE),
    key=lambda kind: kind.__name__,
)


def test_the_results_that_people_meet_are_among_those_that_are_looked_at():
    assert {"Rows", "Splits", "WeightedDraws", "Chains", "Imputation", "AnomalyScores", "Gaps"} <= {
        kind.__name__ for kind in ALL
    }


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(5000, 3),
        np.zeros((5000, 3)),
        {"z": torch.zeros(5000)},
        [torch.zeros(5000)] * 3,
        list(range(5000)),
        "text" * 5000,
    ],
    ids=["tensor", "array", "dict", "list of tensors", "long list", "long text"],
)
def test_a_result_is_short_whatever_it_holds(kind, value):
    found = object.__new__(kind) if is_dataclass(kind) else kind(*[value] * len(kind._fields))
    if is_dataclass(kind):
        for name in kind.__dataclass_fields__:
            object.__setattr__(found, name, value)
    assert len(repr(found)) < MOST
    assert repr(found).startswith(f"{kind.__name__}(")


def test_a_tensor_is_shown_by_dtype_and_shape():
    rows = Rows(torch.zeros(7, 1, 2, dtype=torch.uint8), Identity(), 16, labels=torch.arange(7))
    assert repr(rows) == (
        "Rows(levels=uint8[7, 1, 2], transform=Identity(), max_level=16, labels=int64[7])"
    )


def test_the_result_of_fit_is_a_table_of_its_first_best_and_last_epoch(binary):
    training = Training(epochs=12, batches=Shuffled(10), optimizer=fast, execution=plain)
    x = binary.sample(50)
    result = fit(binary, x, training, validation=1 - x)
    losses = [row.validation_loss for row in result.history]
    best = losses.index(min(losses))
    title, header, *rows = repr(result).splitlines()
    assert title.startswith("Finished after 12 epochs in ")
    assert title.endswith(f" s, {result.how}.")
    assert "validation loss" in header
    assert "test loss" not in header
    shown = [row for row in result.history if row.epoch in (1, best + 1, 12)]
    assert len(rows) == len(shown)
    for line, row in zip(rows, shown, strict=True):
        assert f" {row.epoch} " in line
        assert f"{row.validation_loss:.5g}" in line
    assert "best" in rows[[row.epoch for row in shown].index(best + 1)]
    assert len(repr(result)) < MOST
    assert cells(result._repr_html_())[0] == header_cells(result)


def header_cells(result):
    return ["", *(name.replace("_", " ") for name in Epoch._fields if "test" not in name)]


def test_a_fit_before_its_first_epoch_and_after_one_is_shown(binary):
    seen = []
    training = Training(epochs=1, batches=Shuffled(25), execution=plain)
    fit(binary, binary.sample(50), training, on_epoch=lambda reached: seen.append(repr(reached)))
    before, after = seen
    assert before.startswith("Running after 0 epochs")
    assert "first, last" in after


def test_an_evaluation_is_its_table(binary):
    found = evaluate(binary, binary.sample(30), num_importance_samples=30)
    assert repr(found) == found.table()
    header, *rows = cells(found._repr_html_())
    assert header == ["", "mean", "MC error", "row error", "samples", "rows"]
    assert rows[0][:2] == ["-ELBO (nats)", f"{found.negative_elbo.mean:.4f}"]
    text_rows = found.table().splitlines()[1 : 1 + len(rows)]
    assert [line[22:].split() for line in text_rows] == [row[1:] for row in rows]


def test_all_text_in_a_table_is_escaped():
    exact = Estimate(1.0, 0.0, 0.1, 0, 10)
    evil = "<script>alert('&')</script>"
    found = Evaluation(exact, exact, exact, None, None, None, [1.0], 1, evil)
    assert "<script" not in found._repr_html_()
    table = html_table(evil, [evil], [[evil, evil]], [evil])
    assert "<script" not in table
    assert cells(table) == [[evil], [evil, evil]]


class _Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.open = [], 0

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.open += 1

    def handle_endtag(self, tag):
        self.open -= tag in ("td", "th")

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data


def cells(html):
    """The text of each cell of a table, row by row."""
    parser = _Cells()
    parser.feed(html)
    parser.close()
    return parser.rows


def test_a_value_that_cannot_be_shown_in_short_is_its_class():
    @shown_in_short
    class Found(tuple):
        _fields = ("first",)
        first = "x" * 10_000

    assert repr(Found()) == "Found(first=<str>)"
