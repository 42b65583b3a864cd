"""What the benchmark makes of measured seconds."""

import sys
from pathlib import Path

import pytest

SCRIPTS = str(Path(__file__).parents[2] / "scripts")


@pytest.fixture
def summary(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    from benchmark.machinery import summary

    return summary


@pytest.fixture
def records(summary):
    # A slow round is slow for all: only what is compared within a round tells.
    seconds = {"fast": [1.0, 9.0, 1.2], "faster at best": [0.5, 9.5, 2.0], "slow": [2.0, 18.0, 2.0]}
    return [summary.Record(name, values, {}) for name, values in seconds.items()]


def test_a_ratio_is_the_median_of_ratios_within_rounds(summary, records):
    (verdict,) = summary.judge(
        [summary.Claim("ours / other", ["fast", "faster at best"], ["slow"], 0.5)], records
    )
    assert (verdict.ours, verdict.other) == ("fast", "slow")
    assert (verdict.lowest, verdict.ratio, verdict.highest) == (0.5, 0.5, 0.6)


@pytest.mark.parametrize(
    ("required", "hoped", "word"),
    [(0.5, 0.5, "as hoped"), (0.5, 0.4, "holds"), (0.49, 0.4, "fails")],
)
def test_a_claim_is_judged_by_what_was_measured(summary, records, required, hoped, word):
    claim = summary.Claim("ours / other", ["fast"], ["slow"], required, hoped)
    assert summary.judge([claim], records)[0].word == word


def test_a_claim_of_which_one_side_was_not_measured_is_left_out(summary, records):
    assert summary.judge([summary.Claim("ours / other", ["fast"], ["absent"], 0.5)], records) == []


def test_warm_up_is_what_the_first_block_took_beyond_the_median(summary):
    assert summary.Record("one", [1.0, 3.0, 2.0], {}, first=7.0).warm_up == 5.0


def test_a_block_of_steps_passes_the_same_number_of_draws_whatever_grows(monkeypatch, summary):
    from benchmark.machinery.setting import Setting
    from benchmark.parts.scaling import BLOCK_DRAWS, MIN_STEPS, at

    base = Setting(folder=".")
    for axis, value in (("batch_size", 32), ("num_particles", 10), ("hidden", 100)):
        setting = at(base, axis, value)
        assert setting.num_steps * setting.batch_size * setting.num_particles == BLOCK_DRAWS
    assert at(base, "batch_size", 4096).num_steps == MIN_STEPS
