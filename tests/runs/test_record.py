"""What a run keeps of its data: other data are refused, and new rows are scaled by the training data's level."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_scripts import call, contents

from pyro_vae import (
    MNIST,
    Epoch,
    Execution,
    FixedDraw,
    Identity,
    Rows,
    evaluate,
    load,
    load_data,
    rows_like,
)
from pyro_vae.evaluation import AnomalyScores
from pyro_vae.runs import FORMAT, RunFolder, data_record, load_settings

FORMAT1 = Path(__file__).parent / "data" / "format1"
FORMAT2 = Path(__file__).parent / "data" / "format2"
NUM_ROWS, HIGHEST = 200, 31
# Whole levels whose dtype does not tell how high they go.
SMALL = (
    *(
        "--vae.decoder.hidden",
        "[4]",
        "--vae.encoder.hidden",
        "[4]",
        "--training.epochs",
        "1",
        "--device",
        "cpu",
    ),
    *("--training.execution.trace", "false"),
    *(
        "--vae.likelihood",
        "NormalLikelihood",
        "--data.transform",
        "UnitInterval",
        "--data.source",
        "ArrayFile",
    ),
)


def levels(num_rows=NUM_ROWS, seed=0, highest=HIGHEST):
    array = np.random.default_rng(seed).integers(highest + 1, size=(num_rows, 3))
    array[0, 0] = highest
    return array


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a file of data and a run that was trained on it."""
    folder = tmp_path_factory.mktemp("record")
    np.savez(folder / "mine.npz", x=levels(), y=np.arange(NUM_ROWS) % 3)
    ended = call(folder, "train", *SMALL, "--data.source.path", "mine.npz", "--run", "runs/mine")
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def place(trained, tmp_path):
    """A copy of data and run, whose original is out of reach."""
    folder = shutil.copytree(trained, tmp_path / "place")
    settings = folder / "runs" / "mine" / "settings.yaml"
    settings.write_text(settings.read_text().replace(str(trained), str(tmp_path / "gone")))
    return folder


# The record


def test_run_json_keeps_the_number_level_dtype_shape_and_hash_of_the_rows(trained):
    fields = json.loads((trained / "runs" / "mine" / "run.json").read_text())
    digest = fields["data"].pop("digest")
    assert fields["format"] == FORMAT == 3
    assert fields["data_path"] == "../../mine.npz"
    assert fields["data"] == {
        "num_train": 160,
        "num_validation": 0,
        "num_test": 40,
        "max_level": HIGHEST,
        "dtype": "int64",
        "shape": [3],
    }
    data = load_settings(trained / "runs" / "mine").data
    record = data.record(*data.read())
    assert record.digest == digest
    assert RunFolder(trained / "runs" / "mine").info().data == record


def pair(x=None, y=None):
    x = torch.arange(12.0).reshape(6, 2) if x is None else x
    y = torch.arange(6) if y is None else y
    rows = Rows(x, Identity(), 11.0, y)
    return rows.take(slice(4)), rows.take(slice(4, None))


# The file of data has labels, as files of others do, and no network takes them.
pytestmark = pytest.mark.filterwarnings("ignore:'y' in .* is not used")

BASE = torch.arange(12.0).reshape(6, 2)
NAN = torch.tensor(float("nan"))
CHANGED = {
    "a training level": pair(
        BASE.index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(1e-30))
    ),
    "a test level": pair(BASE.index_put((torch.tensor(5), torch.tensor(1)), torch.tensor(12.0))),
    "a missing entry": pair(BASE.index_put((torch.tensor(5), torch.tensor(1)), NAN)),
    "the order": pair(BASE.flip(0)),
    "a label": pair(y=torch.tensor([0, 1, 2, 3, 5, 5])),
    "the dtype": pair(BASE.double()),
    "the shape": pair(BASE.reshape(6, 2, 1)),
    "the dtype of labels": pair(y=torch.arange(6, dtype=torch.int32)),
    "the split": pair()[::-1],
}


def test_the_same_rows_have_the_same_record():
    assert data_record(*pair()) == data_record(*pair(BASE.clone()))
    holes = BASE.clone()
    holes[0, 0] = NAN
    others = holes.clone()
    others.view(torch.int32)[0, 0] |= 1  # another bit pattern of NaN
    assert others.isnan().any()
    assert data_record(*pair(holes)) == data_record(*pair(others))


@pytest.mark.parametrize("what", CHANGED)
def test_rows_that_differ_in_anything_have_another_record(what):
    assert data_record(*CHANGED[what]) != data_record(*pair())
    assert data_record(*CHANGED[what]).digest != data_record(*pair()).digest


def test_the_level_is_that_of_the_source_before_a_transform_changes_it(trained):
    data = load_settings(trained / "runs" / "mine").data
    data.transform = FixedDraw()
    rows = data.read()
    assert (data.split(*rows).train.max_level, data.record(*rows).max_level) == (1.0, HIGHEST)


@pytest.mark.slow
def test_mnist_has_a_record():
    record = data_record(*MNIST().read())
    assert (record.num_train, record.num_test, record.max_level, record.shape) == (
        60_000,
        10_000,
        255.0,
        (1, 28, 28),
    )


# Other data than those of the run

OTHERS = {
    "a row more": lambda x, y: (np.vstack([x, x[:1]]), np.append(y, 0)),
    "a row fewer": lambda x, y: (x[:-1], y[:-1]),
    "another level": lambda x, y: (
        np.where(np.arange(x.size).reshape(x.shape) == 7, (x + 1) % 31, x),
        y,
    ),
    "another order": lambda x, y: (x[::-1], y[::-1]),
    "another label": lambda x, y: (x, np.where(np.arange(len(y)) == 6, 2 - y, y)),
    "another dtype": lambda x, y: (x.astype(np.float64), y),
    "a higher level": lambda x, y: (np.where(np.arange(x.size).reshape(x.shape) == 7, 40, x), y),
}
READERS = {
    "resume": ["train", "--resume", "--run", "runs/mine"],
    "evaluate": ["evaluate", "runs/mine"],
    "evaluate train": ["evaluate", "runs/mine", "--split", "train"],
    "detect": ["detect", "runs/mine", "mine.npz"],
    "sample": ["sample", "runs/mine"],
    "diagnose": ["diagnose", "runs/mine"],
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_data_are_refused_in_python(place, other):
    x, y = OTHERS[other](levels(), np.arange(NUM_ROWS) % 3)
    np.savez(place / "mine.npz", x=x, y=y)
    with pytest.raises(
        ValueError, match=r"^'data' must be those that .* was trained on \(160 training, "
    ) as caught:
        load_data(place / "runs" / "mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", READERS)
def test_other_data_are_refused_by_every_script_and_nothing_is_written(place, reader):
    np.savez(place / "mine.npz", x=np.vstack([levels(), levels(1)]), y=np.arange(NUM_ROWS + 1) % 3)
    before = contents(place)
    script, *arguments = READERS[reader]
    ended = call(place, script, *arguments)
    (line,) = ended.err.splitlines()
    assert line.startswith(
        "error: 'data' must be those that runs/mine was trained on (160 training, "
    )
    assert (ended.code, ended.out) == (2, "")
    assert contents(place) == before


def test_a_run_and_its_data_that_moved_together_are_found(place):
    rows = load_data(place / "runs" / "mine").test
    assert len(rows) == 40
    # And from another folder, by a link.
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "link").symlink_to(place / "runs" / "mine")
    assert call(place / "elsewhere", "evaluate", "link", "--num_rows", 5).code == 0


def test_a_run_that_moved_alone_finds_its_data_where_they_were(trained, tmp_path):
    run = shutil.copytree(trained / "runs" / "mine", tmp_path / "a" / "b" / "run")
    assert torch.equal(load_data(run).test.levels, load_data(trained / "runs" / "mine").test.levels)


def test_a_run_that_moved_is_resumed_and_notes_where_its_data_are(place):
    before = RunFolder(place / "runs" / "mine").info()
    own = {"command": None, "seconds": None}
    ended = call(place, "train", "--resume", "--run", "runs/mine", "--training.epochs", 2)
    assert ended.code == 0, ended.err
    stored = yaml.safe_load((place / "runs" / "mine" / "settings.yaml").read_text())
    assert stored["data"]["source"]["init_args"]["path"] == str(place / "mine.npz")
    after = RunFolder(place / "runs" / "mine").info()
    assert after._replace(**own) == before._replace(**own)


# New rows


@pytest.mark.parametrize("last", [0, HIGHEST])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
def test_forty_rows_are_the_same_x_whatever_the_forty_first_holds(trained, tmp_path, last, dtype):
    run, rows = trained / "runs" / "mine", levels(41, seed=1, highest=20)
    rows[40] = last
    np.save(tmp_path / "new.npy", rows.astype(dtype))
    x = rows_like(run, tmp_path / "new.npy").batch(slice(40))
    assert torch.equal(x, torch.from_numpy(rows[:40]).float() / HIGHEST)


def test_a_level_above_those_of_the_training_data_is_refused(trained, tmp_path):
    rows = levels(41, seed=1)
    rows[40, 0] = HIGHEST + 1
    np.save(tmp_path / "new.npy", rows)
    sentence = (
        r"'data' must lie in 0 ... 31 for the transform UnitInterval\(\), got values from 0 to 32"
    )
    with pytest.raises(ValueError, match=sentence):
        rows_like(trained / "runs" / "mine", tmp_path / "new.npy")
    for script, *arguments in (["evaluate", "--data"], ["detect"]):
        ended = call(trained, script, "runs/mine", *arguments, tmp_path / "new.npy")
        assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
        assert "'data' must lie in 0 ... 31" in ended.err


def test_the_scripts_score_new_rows_as_the_helper_makes_them(trained, tmp_path):
    run = trained / "runs" / "mine"
    np.save(tmp_path / "new.npy", levels(40, seed=1, highest=20))
    expected = evaluate(load(run), rows_like(run, levels(40, seed=1, highest=20)))
    ended = call(trained, "evaluate", "runs/mine", "--data", tmp_path / "new.npy")
    assert ended.out == expected.table() + "\n"
    scores = []
    for last in (0, HIGHEST):
        np.save(
            tmp_path / "new.npy", np.vstack([levels(40, seed=1, highest=20), np.full((1, 3), last)])
        )
        ended = call(
            trained, "detect", "runs/mine", tmp_path / "new.npy", "--out", tmp_path / "scores.csv"
        )
        assert ended.code == 0, ended.err
        lines = (tmp_path / "scores.csv").read_text().splitlines()[1:41]
        scores.append([line.split(",") for line in lines])
    # The others draw z, and the draws of a row depend on the order of all rows by content.
    for exact in (
        AnomalyScores._fields.index("kl") + 1,
        AnomalyScores._fields.index("squared_error") + 1,
    ):
        assert [row[exact] for row in scores[0]] == [row[exact] for row in scores[1]]


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        torch.from_numpy,
        lambda x: torch.from_numpy(x).double(),
        lambda x: (x, np.arange(len(x))),
        lambda x: Rows(torch.from_numpy(x), Identity(), 20.0),
    ],
)
def test_new_rows_of_every_form_are_made_as_the_rows_of_the_run(trained, form):
    x = levels(7, seed=1, highest=20)
    rows = rows_like(trained / "runs" / "mine", form(x))
    assert torch.equal(rows.batch(slice(None)), torch.from_numpy(x).float() / HIGHEST)
    assert (rows.labels is not None) == isinstance(form(x), tuple)


def test_rows_that_are_x_already_are_no_levels(trained):
    rows = load_data(trained / "runs" / "mine").test
    with pytest.raises(
        ValueError, match=r"'data' must hold levels as they are stored, got rows with the transform"
    ):
        rows_like(trained / "runs" / "mine", rows)


# Folders of format 1


@pytest.fixture
def old(tmp_path):
    return shutil.copytree(FORMAT1, tmp_path / "run")


def test_a_folder_of_format_1_gives_the_numbers_that_were_written_with_it(old):
    with pytest.warns(
        UserWarning, match="run keeps no record of its data, as runs of format 1 do not"
    ) as caught:
        rows = load_data(old).test
    assert len(caught) == 1
    expected = json.loads((old / "metrics.json").read_text())
    evaluation = evaluate(load(old), rows)
    assert evaluation.negative_elbo.mean == pytest.approx(
        expected["negative_elbo"]["mean"], rel=1e-5
    )
    assert evaluation.log_marginal.mean == pytest.approx(expected["log_marginal"]["mean"], rel=1e-5)


def test_new_rows_for_a_folder_of_format_1_have_the_level_of_the_data_that_are_there_now(old):
    with pytest.warns(UserWarning, match="run keeps no record of its data"):
        rows = rows_like(old, np.full((2, 1, 8, 8), 9, dtype=np.uint8))
    assert rows.max_level == 16.0


def test_a_run_of_format_1_is_resumed_with_one_warning_and_is_of_this_format_then(old, tmp_path):
    arguments = [
        "--resume",
        "--run",
        "run",
        "--training.epochs",
        3,
        "--training.execution.trace",
        "false",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        ended = call(tmp_path, "train", *arguments)
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("warning: ")]
    assert "run keeps no record of its data" in line
    info = RunFolder(old).info()
    assert (info.format, info.data, info.x_shape) == (FORMAT, None, (1, 8, 8))
    assert len(RunFolder(old).fit().history) == 3


# Folders of format 2


@pytest.fixture
def old2(tmp_path):
    return shutil.copytree(FORMAT2, tmp_path / "run")


def test_a_folder_of_format_2_gives_the_numbers_that_were_written_with_it(old2):
    expected = json.loads((old2 / "metrics.json").read_text())
    evaluation = evaluate(load(old2), load_data(old2).test)
    for name in ("negative_elbo", "log_marginal"):
        received = getattr(evaluation, name).mean
        assert received == pytest.approx(expected[name]["mean"], rel=1e-5)


def test_a_run_of_format_2_is_resumed_and_is_of_this_format_then(old2, tmp_path):
    """Its classes were defined in other modules then, and how it was run was no group."""
    arguments = ["--resume", "--run", "run", "--training.epochs", 2]
    ended = call(tmp_path, "train", *arguments, "--training.execution.trace", "false")
    assert ended.code == 0, ended.err
    assert "warning" not in ended.err
    assert RunFolder(old2).info().format == FORMAT
    assert [row.epoch for row in RunFolder(old2).fit().history] == [1, 2]
    header, first, _ = (old2 / "history.csv").read_text().splitlines()
    assert header.split(",") == list(Epoch._fields)
    assert first == (FORMAT2 / "history.csv").read_text().splitlines()[1] + ",,"  # no rates then
    assert load_settings(old2).training.execution == Execution(trace=False)


@pytest.mark.parametrize("folder", [FORMAT1, FORMAT2])
def test_how_a_run_of_an_older_format_was_run_is_read(folder):
    assert "trace: true" in (folder / "settings.yaml").read_text()
    assert load_settings(folder).training.execution == Execution()
