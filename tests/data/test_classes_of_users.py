"""Classes of the user's own: each wrong result is named with its class and method."""

import re
from itertools import repeat

import pytest
import torch

from pyro_vae.data import Batches, Identity, Rows, Source, Transform, load_splits
from pyro_vae.data.batches import count_of, indices_of

X = torch.arange(48.0).reshape(4, 3, 4)


def own(base, **members):
    """A class that defines the methods of a contract, with some of them replaced."""
    valid = {
        Batches: {
            "num_batches": lambda self, num_rows: 2,
            "indices": lambda self, num_rows: iter(torch.arange(num_rows).split(2)),
        },
        Transform: {"__call__": lambda self, levels, max_level: levels / max_level},
        Source: {"read": lambda self: (Rows(X, Identity()), Rows(X, Identity()))},
    }
    return type("Own", (base,), valid[base] | members)


def give(*values):
    return lambda *arguments: values[0] if len(values) == 1 else values


def batches(**members):
    return indices_of(own(Batches, **members)(2), 2, 4)


def count(value):
    return count_of(own(Batches, num_batches=value)(2), "num_batches", 4)


def rows(data=X, **members):
    return Rows(data, own(Transform, **members)(), 47.0)


def splits(read):
    return load_splits(own(Source, read=read)(), Identity())


class Uninitialised(own(Batches)):
    def __init__(self):
        self.number = 2


SHAPE = "must return a tensor of the shape of its levels, (2, 3, 4), got"
BATCHES = "'indices' of Own must return batches, each a tensor (B,) of row numbers, got"
TWO = "'read' of Own must return the training rows and the test rows, two Rows, got"
STORED = "'prepare' of Own must return the levels to store and their highest, a tensor and a number"

REFUSED = {
    "a count of reals": (lambda: count(give(2.0)), "'num_batches' of Own must return a whole number"),
    "no count": (lambda: count(give(None)), "of at least 0, got None."),
    "a negative count": (lambda: count(give(-1)), "of at least 0, got -1."),
    "a count as an attribute": (lambda: count(2), "'num_batches' of Own must be a method that takes "
                                "(num_rows), but the call does not fit: 2 is not a callable"),
    "no super().__init__": (lambda: count_of(Uninitialised(), "num_batches", 4),
                            "'__init__' of Uninitialised must call super().__init__(size=...)"),
    "no batches": (lambda: batches(indices=give(None)), f"{BATCHES} None."),
    "one flat batch": (lambda: batches(indices=give(torch.arange(4))), f"{BATCHES} a tensor of"),
    "lists": (lambda: batches(indices=give([[0, 1], [2, 3]])), f"{BATCHES} [0, 1] for a batch."),
    "masks": (lambda: batches(indices=give([torch.ones(4).bool()])), f"{BATCHES} a tensor of torch.b"),
    "real numbers": (lambda: batches(indices=give([torch.ones(2)])), f"{BATCHES} a tensor of torch.f"),
    "an empty batch": (lambda: batches(indices=give([torch.arange(0)])), f"{BATCHES} a tensor of"),
    "few batches": (lambda: batches(indices=give([torch.arange(4)])), "'indices' of Own must return 2 "
                    "batches, the number that 'num_batches' returns, got 1."),
    "batches without end": (lambda: batches(indices=give(repeat(torch.arange(2)))), "got more."),
    "rows beyond": (lambda: batches(indices=give([torch.arange(3), torch.arange(5)])),
                    "'indices' of Own must return row numbers 0 ... 3, got numbers from 0 to 4."),
    "another argument": (lambda: batches(indices=lambda self: None), "must be a method that takes ("),
    "one Rows": (lambda: splits(give(Rows(X, Identity()))), f"{TWO} a Rows."),
    "tensors": (lambda: splits(give(X, X)), f"{TWO} a tensor of the shape (4, 3, 4)."),
    "no rows": (lambda: splits(give(None)), f"{TWO} None."),
    "three Rows": (lambda: splits(give(*[Rows(X, Identity())] * 3)), f"{TWO} a tuple of 3."),
    "two shapes": (lambda: splits(give(Rows(X, Identity()), Rows(X[:, 0], Identity()))),
                   "must return training and test rows of one shape, got (3, 4) and (4,)."),
    "read(train)": (lambda: splits(lambda self, train: None), "must be a method that takes no arg"),
    "a flat x": (lambda: rows(__call__=lambda self, levels, _: levels.flatten(1)),
                 f"'__call__' of Own {SHAPE} the shape (2, 12)."),
    "no x": (lambda: rows(__call__=give(None)), f"'__call__' of Own {SHAPE} None."),
    "an array": (lambda: rows(__call__=lambda self, levels, _: levels.numpy()), f"{SHAPE} an array"),
    "in place": (lambda: rows(__call__=lambda self, levels, most: levels.div_(most)),
                 "'__call__' of Own must return a new tensor, got its levels, changed in place."),
    "no max_level": (lambda: rows(__call__=lambda self, levels: levels), "(levels, max_level), but"),
    "infinite x": (lambda: rows(__call__=lambda self, levels, _: levels.log()).checked_batch(
        slice(None)), "'__call__' of Own must return finite numbers, got NaN or infinity in 1 of 4"),
    "a check that returns": (lambda: rows(check=give(False)), "'check' of Own must return None, and "
                             "raise a ValueError for levels that it refuses, got False."),
    "levels alone": (lambda: rows(prepare=give(X)), f"{STORED} above 0, got a tensor of the shape"),
    "swapped": (lambda: rows(prepare=give(47.0, X)), f"{STORED} above 0, got 47.0."),
    "no highest level": (lambda: rows(prepare=give(X, 0)), "above 0, got 0 as the highest."),
    "fewer rows": (lambda: rows(prepare=give(X[:2], 1.0)), "one row of levels for each of the 4 rows"),
    "infinite levels": (lambda: rows(prepare=give(X.log(), 4.0)), "must return finite levels, got NaN"),
    "another shape": (lambda: rows(X.where(X > 0, torch.nan), prepare=give(X.flatten(1), 47.0)),
                      "'prepare' of Own must return a tensor of the shape of its levels, (4, 3, 4)"),
    "one mean": (lambda: rows(mean=give(0.5)).mean(), "'mean' of Own must return a tensor of the"),
    "a mean of rows": (lambda: rows(mean=lambda self, levels, _: levels.mean(0)).std(), "(4, 3, 4), got"),
    "no variance": (lambda: rows(variance=give(None)).std(), "'variance' of Own must return a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_result_is_refused_by_class_and_method(name):
    call, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()


def test_right_results_are_accepted_in_each_form():
    assert [len(index) for index in batches()] == [2, 2]
    assert len(batches(indices=give(torch.arange(4, dtype=torch.int32).reshape(2, 2)))) == 2
    assert count(give(torch.tensor(2))) == 2
    assert splits(lambda self: [Rows(X, Identity())] * 2).train.levels is not None
    halves = rows(prepare=lambda self, levels, most, part: (levels[:, :1], torch.tensor(most)))
    assert halves.x_shape == (1, 4)
    assert halves.max_level == 47.0


def test_the_trial_of_a_transform_leaves_no_trace():
    state = torch.random.get_rng_state()
    stored = rows(__call__=lambda self, levels, most: torch.bernoulli(levels / most)).levels
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(stored, X)
