"""What turns stored levels into x: binarisation, its randomness, and the streams that keep the parts of the data apart."""

import math

import pytest
import torch

from pyro_vae import (
    BetaLikelihood,
    DynamicDraw,
    FixedDraw,
    Identity,
    OpenUnitInterval,
    Rows,
    Threshold,
    UnitInterval,
    load_splits,
)
from pyro_vae.data import Source
from pyro_vae.support import stream

# Five standard errors: a right implementation fails with probability 5.7e-7 for each mean that is compared.
SIGMAS = 5
GREY = torch.tensor([[0.0, 127.0, 128.0, 255.0]])


class SameLevels(Source):
    """The very same grey levels to train and to test on."""

    def read(self):
        levels = torch.arange(256, dtype=torch.uint8).repeat(40, 1)
        levels[0] = 0
        rows = Rows(levels, Identity(), 255.0)
        return rows, rows


def assert_mean(draws, probability):
    error = math.sqrt(probability * (1 - probability) / draws.numel())
    assert abs(draws.double().mean().item() - probability) < SIGMAS * error


def test_identity_keeps_any_levels_as_they_are():
    levels = torch.tensor([[-3.0, 0.5, 1e6]])
    Identity().check(levels, 1.0)
    assert torch.equal(Identity()(levels, 1.0), levels)


def test_unit_interval_divides_by_the_highest_level():
    assert torch.equal(UnitInterval()(GREY, 255.0), GREY / 255)


@pytest.mark.parametrize("max_level", [1, 16, 255, 65_535])
def test_the_open_unit_interval_has_each_level_in_the_middle_of_its_own_share(max_level):
    levels = torch.arange(max_level + 1.0)
    x = OpenUnitInterval()(levels, float(max_level))
    assert torch.equal((x * (max_level + 1)).floor(), levels)
    torch.testing.assert_close(x.flip(0), 1 - x)
    BetaLikelihood(torch.nn.Identity(), len(x)).check(x)


@pytest.mark.parametrize(
    ("threshold", "max_level", "levels", "expected"),
    [
        (0.5, 255.0, [0, 127, 128, 255], [0, 0, 1, 1]),
        (0.5, 16.0, [0, 8, 9, 16], [0, 0, 1, 1]),
        (0.0, 16.0, [0, 1, 8, 16], [0, 1, 1, 1]),
        (0.25, 1.0, [0, 0.25, 0.26, 1], [0, 0, 1, 1]),
    ],
)
def test_threshold_is_one_strictly_above_its_share_of_the_highest_level(
    threshold, max_level, levels, expected
):
    x = Threshold(threshold)(torch.tensor([levels], dtype=torch.float32), max_level)
    assert torch.equal(x, torch.tensor([expected], dtype=torch.float32))


@pytest.mark.parametrize("threshold", [-0.1, 1.0, math.nan])
def test_threshold_refuses_what_lies_outside_the_unit_interval(threshold):
    with pytest.raises(ValueError, match=r"'threshold' must lie in \[0, 1\), got"):
        Threshold(threshold)


@pytest.mark.parametrize(
    "transform",
    [UnitInterval(), OpenUnitInterval(), Threshold(), FixedDraw(), DynamicDraw()],
    ids=repr,
)
@pytest.mark.parametrize("levels", [[-1.0, 1.0], [0.0, 17.0]])
def test_levels_outside_their_range_are_refused(transform, levels):
    with pytest.raises(
        ValueError, match=r"'data' must lie in 0 ... 16 for the transform .*\(.*\), got values from"
    ):
        transform.check(torch.tensor([levels]), 16.0)


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (Threshold(0.3), "Threshold(threshold=0.3)"),
        (FixedDraw(7), "FixedDraw(seed=7)"),
        (Identity(), "Identity()"),
    ],
)
def test_a_transform_shows_its_settings(transform, text):
    assert repr(transform) == text


@pytest.mark.parametrize(
    "transform", [Identity(), UnitInterval(), OpenUnitInterval(), Threshold()], ids=repr
)
def test_a_transform_without_chance_is_its_own_mean(transform):
    assert torch.equal(transform.mean(GREY, 255.0), transform(GREY, 255.0))


# FixedDraw


def test_a_fixed_draw_is_binary_and_stored_in_bytes():
    levels, max_level = FixedDraw().prepare(GREY.to(torch.uint8), 255.0, 0)
    assert (levels.dtype, levels.element_size(), max_level) == (torch.bool, 1, 1.0)
    assert levels[0, 0] == 0
    assert levels[0, 3] == 1


def test_a_fixed_draw_depends_on_its_seed_alone():
    levels = torch.full((20, 16), 8, dtype=torch.uint8)
    before = torch.get_rng_state()
    first, again, other = (FixedDraw(seed).prepare(levels, 16.0, 0)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_part_of_the_data_has_a_fixed_draw_of_its_own():
    levels = torch.full((20, 16), 8, dtype=torch.uint8)
    train, validation, test = (FixedDraw(0).prepare(levels, 16.0, part)[0] for part in (0, 1, 2))
    assert not torch.equal(train, test)
    assert not torch.equal(train, validation)
    assert not torch.equal(validation, test)


def test_test_rows_are_not_binarised_by_the_training_stream():
    splits = load_splits(SameLevels(), FixedDraw(0))
    grey = slice(1, None)  # the first row is black in any draw
    differing = (splits.train.batch(grey) != splits.test.batch(grey)).double().mean().item()
    # Two independent draws at level g differ with probability 2 g (1 - g); a shared stream would make this 0.
    shares = torch.arange(256).double() / 255
    expected = (2 * shares * (1 - shares)).mean().item()
    assert abs(differing - expected) < SIGMAS * math.sqrt(expected / (39 * 256))


def test_a_fixed_draw_is_the_same_at_every_reading_and_in_every_batch():
    first, again = (load_splits(SameLevels(), FixedDraw(0)) for _ in range(2))
    assert torch.equal(first.train.levels, again.train.levels)
    assert torch.equal(first.test.levels, again.test.levels)
    assert torch.equal(first.train.batch(slice(5)), first.train.batch(slice(5)))


def test_a_fixed_draw_has_the_grey_levels_as_its_mean_and_does_not_repeat_from_block_to_block():
    levels = torch.full((9000, 4), 4, dtype=torch.uint8)
    draws, _ = FixedDraw(0).prepare(levels, 16.0, 0)
    assert_mean(draws, 0.25)
    assert not torch.equal(draws[:4096], draws[4096:8192])


# DynamicDraw


def test_a_dynamic_draw_is_fresh_in_each_call_and_binary():
    levels = torch.full((20, 16), 8.0)
    with stream(0):
        first, second = DynamicDraw()(levels, 16.0), DynamicDraw()(levels, 16.0)
    assert not torch.equal(first, second)
    assert set(torch.cat([first, second]).unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("level", [1, 8, 15])
def test_a_dynamic_draw_has_the_grey_level_as_its_mean(level):
    levels = torch.full((100, 1000), float(level))
    with stream(1):
        assert_mean(DynamicDraw()(levels, 16.0), level / 16)
    assert torch.equal(DynamicDraw().mean(levels, 16.0), levels / 16)


def test_a_dynamic_draw_leaves_the_edges_alone():
    levels = torch.tensor([[0.0, 16.0]]).expand(1000, 2)
    with stream(2):
        assert torch.equal(DynamicDraw()(levels, 16.0), levels / 16)


def test_fractions_are_no_levels_to_move_off_the_ends():
    with pytest.raises(
        ValueError, match="'data' must hold whole levels for the transform OpenUnitInterval"
    ):
        OpenUnitInterval().check(torch.tensor([[0.25]]), 1.0)
