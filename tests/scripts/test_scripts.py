"""The command lines end to end: what they write, how they end, and what they say to a mistake."""

import contextlib
import importlib
import io
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml

from pyro_vae import load
from pyro_vae.diagnostics import diagnosis, inference_gaps
from pyro_vae.runs import RunFolder

SCRIPTS = Path(__file__).parents[2] / "scripts"
# A small network on scikit-learn's digits, with all the state there is to resume: validation rows and a schedule. So few
# steps are not worth a trace.
SMALL = (
    *(
        "--vae.decoder.hidden",
        "[16]",
        "--vae.encoder.hidden",
        "[16]",
        "--training.batches.size",
        "500",
    ),
    *(
        "--data.validation_fraction",
        "0.2",
        "--training.scheduler",
        "StepLR",
        "--training.scheduler.step_size",
        "2",
    ),
    *("--device", "cpu", "--training.execution.trace", "false"),
)
EPOCHS = 4
RUN_FILES = [
    "best.pt",
    "history.csv",
    "history.png",
    "last.pt",
    "manifold.png",
    "metrics.json",
    "run.json",
    "settings.yaml",
    "state.pt",
]
SAMPLES = ["interpolation", "manifold", "prior_means", "prior_samples", "reconstructions"]


class Ended(NamedTuple):
    """How a script ended."""

    code: int
    out: str
    err: str


def write_nothing(figure, path, **options):
    """Stand for `Figure.savefig`, which takes a quarter of the time of a small run."""
    Path(path).write_bytes(b"")


def call(folder, script, *arguments, draws=False):
    """Run a script in this process, in a folder, as its own command line would; nothing of it stays.

    Files of figures are empty, unless `draws`.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(folder)
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        patch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
        patch.setattr(sys, "dont_write_bytecode", True)
        if not draws:
            patch.setattr("matplotlib.figure.Figure.savefig", write_nothing)
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
    return Ended(caught.value.code or 0, out.getvalue(), err.getvalue())


def contents(folder):
    return {
        file.relative_to(folder): file.read_bytes()
        for file in Path(folder).rglob("*")
        if file.is_file()
    }


def assert_same_run(first, second):
    """Two runs reached the same, bit for bit; only the time they took differs."""
    first, second = RunFolder(first), RunFolder(second)
    rows, others = (
        [row._replace(seconds=0) for row in run.fit().history] for run in (first, second)
    )
    assert rows == others
    for name in ("best", "last"):
        weights, others = first.weights(name), second.weights(name)
        assert list(weights) == list(others)
        assert all(torch.equal(weights[key], others[key]) for key in weights)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with an uninterrupted run of a few epochs, and how its training ended."""
    folder = tmp_path_factory.mktemp("scripts")
    arguments = (*SMALL, "--training.epochs", EPOCHS, "--run", "run")
    return folder, call(folder, "train", *arguments, draws=True)


# Training


def test_training_writes_a_run_folder_and_reports_the_test_rows(trained):
    folder, ended = trained
    assert ended.code == 0
    assert sorted(file.name for file in (folder / "run").iterdir() if file.is_file()) == RUN_FILES
    assert all(file.stat().st_size > 1000 for file in (folder / "run").glob("*.png"))
    assert f"Finished after {EPOCHS} epochs. The steps were plain. The run is in run." in ended.out
    assert "-ELBO (nats)" in ended.out
    assert load(folder / "run").x_shape == (1, 8, 8)
    assert [row.epoch for row in RunFolder(folder / "run").fit().history] == [1, 2, 3, 4]


def test_the_run_folder_is_named_after_the_preset_when_no_other_name_is_given(tmp_path):
    few = ("--data.source.rows_per_class=10", "--training.epochs=1", "--training.batches.batches=3")
    ended = call(tmp_path, "train", "onehot", *few, "--training.optimizer", "AdamW")
    assert ended.code == 0
    # What was dropped is said once, in one line.
    assert (
        ended.err.count(
            "'training.optimizer' is AdamW now: lr = 0.001 and fused = True of Adam are dropped.\n"
        )
        == 1
    )
    assert "The steps were traced. The run is in " in ended.out
    assert (tmp_path / "runs" / "onehot" / "metrics.json").is_file()


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trained, tmp_path):
    assert call(tmp_path, "train", *SMALL, "--training.epochs", 2, "--run", "run").code == 0
    ended = call(tmp_path, "train", *SMALL, "--training.epochs", EPOCHS, "--run", "run", "--resume")
    assert ended.code == 0
    assert_same_run(tmp_path / "run", trained[0] / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == json.loads(
        (trained[0] / "run" / "metrics.json").read_text()
    )


def test_the_state_of_the_callers_random_numbers_does_not_matter(trained, tmp_path):
    torch.rand(17)
    np.random.default_rng().random()
    assert call(tmp_path, "train", *SMALL, "--training.epochs", EPOCHS, "--run", "run").code == 0
    assert_same_run(tmp_path / "run", trained[0] / "run")


def test_a_run_is_kept_unless_it_may_be_overwritten(tmp_path):
    short = ("train", *SMALL, "--training.epochs", 1, "--run", "run")
    assert call(tmp_path, *short).code == 0
    before = contents(tmp_path)
    ended = call(tmp_path, *short, "--training.seed", 3)
    assert ended.code == 2
    assert ended.err.startswith(
        "error: 'run' must be a new or empty folder, got run, which holds files"
    )
    assert contents(tmp_path) == before
    assert call(tmp_path, *short, "--training.seed", 3, "--overwrite").code == 0
    assert contents(tmp_path)[Path("run/best.pt")] != before[Path("run/best.pt")]


@pytest.mark.parametrize(
    "resumed",
    [
        "--vae.decoder.hidden=[17]",
        "--training.optimizer=SGD",
        "--data.validation_fraction=0.1",
        pytest.param("--training.seed=1", marks=pytest.mark.slow),
        pytest.param("--training.objective=Trace_ELBO", marks=pytest.mark.slow),
        pytest.param("--training.batches.size=7", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_not_resumed_with_other_parts(trained, tmp_path, resumed):
    before = contents(trained[0] / "run")
    ended = call(
        trained[0], "train", *SMALL, "--training.epochs", 9, "--run", "run", "--resume", resumed
    )
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert ended.err.startswith("error: ")
    assert contents(trained[0] / "run") == before


def epochs_on_disk(run):
    with contextlib.suppress(OSError):
        return len((run / "history.csv").read_text().splitlines()) - 1
    return 0


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_loads_and_is_finished_by_resuming(tmp_path):
    run = tmp_path / "run"
    endless = [
        sys.executable,
        SCRIPTS / "train.py",
        *SMALL,
        "--training.epochs",
        "1000000",
        "--run",
        "run",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    # A shell that starts the tests in the background would have them ignore the signal, and their children too.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(endless, cwd=tmp_path, stdout=out, stderr=err, env=environment)
    signal.signal(signal.SIGINT, handler)
    while process.poll() is None and epochs_on_disk(run) < 1:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130, (tmp_path / "err").read_text()
    assert "Traceback" not in (tmp_path / "err").read_text()
    reached = len(RunFolder(run).fit().history)
    assert reached == epochs_on_disk(run) >= 1
    assert (tmp_path / "out").read_text() == (
        f"Interrupted after {reached} epoch{'s' * (reached > 1)}. "
        "The steps were plain. The run is in run.\n"
    )
    for weights in ("best", "last"):
        assert load(run, weights).sample(2).shape == (2, 1, 8, 8)
    finish = ("train", *SMALL, "--training.epochs", reached + 1)
    assert call(tmp_path, *finish, "--run", "run", "--resume").code == 0
    assert call(tmp_path, *finish, "--run", "uninterrupted").code == 0
    assert_same_run(run, tmp_path / "uninterrupted")


# Nothing is written or removed before the first epoch is done


FAILING = (
    "train",
    *SMALL,
    "--training.epochs",
    1,
    "--run",
    "run",
    "--training.optimizer.lr",
    "1e30",
)


def test_a_run_that_fails_leaves_no_folder_and_an_old_run_as_it_was(trained, tmp_path):
    ended = call(tmp_path, *FAILING)
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith(
        "error: The loss became NaN or infinite in epoch 1"
    )
    assert list(tmp_path.iterdir()) == []
    before = contents(trained[0] / "run")
    assert call(trained[0], *FAILING, "--overwrite").code == 2
    assert contents(trained[0] / "run") == before


def test_a_folder_of_a_run_without_an_epoch_is_replaced_and_any_other_is_not(trained, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(trained[0] / "run", folder.path)
    with pytest.raises(ValueError, match="'run' must be a new or empty folder"):
        folder.check_free(overwrite=False)
    for name in ("history.png", "manifold.png", "metrics.json"):
        (folder.path / name).unlink()
    head, *_ = (folder.path / "history.csv").read_text().splitlines()
    (folder.path / "history.csv").write_text(head + "\n")
    folder.check_free(overwrite=False)
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="'run' must be a new or empty folder"):
        folder.check_free(overwrite=False)


def test_a_run_that_ended_in_nan_says_so_when_it_is_loaded(trained, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(trained[0] / "run", folder.path)
    folder.save_failure("The loss became NaN in epoch 5.\x1b[2J")
    with pytest.warns(
        UserWarning, match="run holds a run that failed: The loss became NaN in epoch 5"
    ):
        load(folder.path)
    folder.save_settings((folder.path / "settings.yaml").read_text(), (1, 8, 8))
    load(folder.path)
    weights = {
        name: torch.full_like(value, torch.nan) for name, value in folder.weights("best").items()
    }
    torch.save(weights, folder.path / "best.pt")
    with pytest.raises(
        ValueError, match="best.pt must hold finite weights, got NaN or infinity in"
    ):
        load(folder.path)


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        ("train", ["--run", ""], "'run' must be the name of a folder, got an empty string"),
        ("train", ["--resume", "--overwrite"], "'resume' continues a run and 'overwrite' replaces"),
        ("train", ["--device", "meta"], "'device' must be auto or a device of this machine"),
        (
            "train",
            ["--data.seed", "-1"],
            "'data.seed' must be a whole number of at least 0, got -1",
        ),
        ("compare", ["elbo", "--out", ""], "'out' must be the name of a folder"),
        ("compare", ["elbo", "--settings", "'a"], "'settings' must be words as in a shell"),
        ("compare", ["elbo", "--num_rows", "0"], "'num_rows' must be a whole number of at least 1"),
        (
            "compare_counts",
            ["--epochs", "x"],
            "'epochs' must be a whole number of at least 1, got x",
        ),
        ("reproduce", ["all", "R9"], "'systems' must be of R0, R1, R2, R3, R4, anomaly, remedies"),
        ("run_benchmark", ["all", "epoch"], "or all, got epoch; the nearest is 'epochs'"),
        ("compare", ["elbo", "--settings", "--training.epochs"], "'--settings' needs a value, got"),
        (
            "compare",
            ["elbo", "--settings=--training.epochs 0"],
            "'training.epochs' must be a whole",
        ),
        (
            "examples/regression",
            ["--folds", "1"],
            "'folds' must be a whole number from 2 to the 569",
        ),
        ("examples/regression", ["--folds", "570"], "'folds' must be a whole number from 2 to"),
        ("reproduce", ["R0", "--out", "/proc/none"], "'out' must be a folder that can be written"),
        ("run_benchmark", ["page", "--out", "none"], "'out' must hold the JSON of a part"),
        (
            "run_benchmark",
            ["epochs", "--rounds", "0"],
            "'rounds' must be a whole number of at least 1",
        ),
        ("examples/mixture", ["--out", "/proc/none"], "'out' must be a folder that can be written"),
        ("examples/regression", ["--seed", "-1"], "'seed' must be a whole number of at least 0"),
    ],
    ids=str,
)
def test_a_mistake_that_needs_no_run_ends_every_script_in_one_sentence(
    tmp_path, script, arguments, sentence
):
    assert_one_error(call(tmp_path, script, *arguments), sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["all"], ["a", "b"]),
        (["all", "b"], ["a", "b"]),
        (["c", "all"], ["c", "a", "b"]),
        (["b", "b"], ["b"]),
    ],
)
def test_all_stands_for_several_names_and_each_is_taken_once(monkeypatch, names, found):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    chosen = importlib.import_module("choice").chosen
    assert chosen(names, "parts", "abc", of_all=["a", "b"]) == found


def test_an_objective_that_cannot_take_a_step_is_named_and_nothing_is_written(tmp_path):
    wrong = ("--training.objective=TraceTailAdaptive_ELBO", "--training.epochs=1")
    ended = call(tmp_path, "train", *wrong, *SMALL, "--run", "run")
    assert_one_error(ended, "'training.objective' cannot be used: TraceTailAdaptive_ELBO only")
    assert list(tmp_path.iterdir()) == []


def test_a_setting_of_the_stored_data_may_be_repeated_but_not_changed(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(40, 6)))
    of_file = ("--data.source=ArrayFile", "--data.source.path=a.npy", *SMALL)
    likelihood = ("--vae.likelihood=NormalLikelihood", "--vae.initialize_bias=false")
    first = call(tmp_path, "train", *of_file, *likelihood, "--training.epochs=1", "--run", "run")
    assert first.code == 0, first.err
    ended = call(tmp_path, "train", "--resume", "--run", "run", "--data.source.path=b.npy")
    assert_one_error(ended, "'data.source.path' must be ")


# Evaluation and samples


def test_evaluating_the_test_rows_repeats_the_metrics_of_training(trained):
    folder, ended = trained
    before = json.loads((folder / "run" / "metrics.json").read_text())
    again = call(folder, "evaluate", "run", draws=True)
    assert (again.code, again.err) == (0, "")
    assert again.out in ended.out
    assert f"k-hat exceeds 0.7 in {before['high_khat_share']:.1%} of rows" in again.out
    assert json.loads((folder / "run" / "metrics.json").read_text()) == before


@pytest.mark.slow
def test_evaluating_other_rows_leaves_the_metrics_alone(trained, tmp_path):
    folder, _ = trained
    before = contents(folder)
    rows = np.random.default_rng(0).integers(17, size=(7, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "rows.npy", rows)
    for arguments, num_rows in (
        (["--split", "train", "--num_rows", 50], 50),
        (["--split", "validation"], 300),
        (["--data", tmp_path / "rows.npy", "--weights", "last"], 7),
        (["--num_rows", 9], 9),
    ):
        ended = call(
            folder, "evaluate", "run", *arguments, "--num_samples", 2, "--num_importance_samples", 0
        )
        assert ended.code == 0, ended.err
        table = ended.out.splitlines()
        assert table[1].split()[-2:] == ["2", str(num_rows)]
        assert "log p(x)" not in ended.out
    assert contents(folder) == before


def test_sampling_writes_pictures_and_their_numbers(trained, tmp_path):
    folder, _ = trained
    before = contents(folder)
    arguments = ("sample", "run", "--num_rows", 3, "--steps", 5, "--out")
    ended = call(folder, *arguments, tmp_path / "a", draws=True)
    assert (ended.code, ended.err) == (0, "")
    assert all(file.stat().st_size > 1000 for file in (tmp_path / "a").glob("*.png"))
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == sorted(
        f"{name}{suffix}" for name in SAMPLES for suffix in (".npy", ".png")
    )
    shapes = {name: np.load(tmp_path / "a" / f"{name}.npy").shape for name in SAMPLES}
    assert shapes == {
        "interpolation": (5, 1, 8, 8),
        "manifold": (20, 20, 1, 8, 8),
        "prior_means": (9, 1, 8, 8),
        "prior_samples": (9, 1, 8, 8),
        "reconstructions": (2, 3, 1, 8, 8),
    }
    draws = np.load(tmp_path / "a" / "prior_samples.npy")
    assert np.array_equal(draws, draws.round())
    assert 0 <= draws.min() <= draws.max() <= 16
    assert contents(folder) == before
    call(folder, *arguments, tmp_path / "b")
    assert np.array_equal(np.load(tmp_path / "b" / "prior_samples.npy"), draws)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A folder with a run whose parts take the label of a digit."""
    folder = tmp_path_factory.mktemp("conditional")
    contexts = ("--vae.decoder.context_dim", 10, "--vae.encoder.context_dim", 10)
    assert (
        call(folder, "train", *SMALL, *contexts, "--training.epochs", EPOCHS, "--run", "run").code
        == 0
    )
    return folder


@pytest.mark.slow
def test_a_conditional_run_is_sampled_for_a_label_or_for_all_of_them(conditional, tmp_path):
    for out, arguments in (
        ("all", []),
        ("three", ["--y", 3]),
        ("vector", ["--y", str(torch.eye(10)[3].tolist())]),
    ):
        ended = call(
            conditional, "sample", "run", "--out", tmp_path / out, "--num_rows", 10, *arguments
        )
        assert ended.code == 0, ended.err
    means = {out: np.load(tmp_path / out / "prior_means.npy") for out in ("all", "three", "vector")}
    assert np.array_equal(means["three"], means["vector"])
    # The draws of z are the same: only the row of the label 3 has the same pictures.
    same = [
        np.allclose(means["all"][10 * row], means["three"][10 * row], atol=1e-5)
        for row in range(10)
    ]
    assert same == [row == 3 for row in range(10)]


def test_a_conditional_run_refuses_a_label_that_it_does_not_know(conditional):
    ended = call(conditional, "sample", "run", "--y", 10)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert (
        "'y' must be a label from 0 to 9, or a list of 10 numbers, for this VAE, got 10."
        in ended.err
    )
    assert call(conditional, "evaluate", "run", "--num_rows", 50).code == 0


@pytest.mark.parametrize("latent", ["aggregated", "mixture"])
def test_a_run_is_sampled_from_where_the_codes_lie(trained, tmp_path, latent):
    ended = call(
        trained[0], "sample", "run", "--out", tmp_path / "a", "--num_rows", 4, "--latent", latent
    )
    assert ended.code == 0, ended.err
    assert np.load(tmp_path / "a" / f"{latent}_samples.npy").shape == (16, 1, 8, 8)


def test_what_is_seldom_meant_is_said_in_one_line(tmp_path):
    flow = ("--vae.posterior", "FlowPosterior", "--training.objective", "TraceMeanField_ELBO")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        ended = call(tmp_path, "train", *SMALL, *flow, "--training.epochs", 1, "--run", "run")
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("warning: ")]
    assert "TraceMeanField_ELBO draws the KL of z like Trace_ELBO" in line


@pytest.mark.slow
def test_the_parts_of_the_rate_are_reported_where_they_are_weighed(tmp_path):
    objective = ("--training.objective", "TotalCorrelationELBO", "--vae.latent_dim", 3)
    assert (
        call(tmp_path, "train", *SMALL, *objective, "--training.epochs", 1, "--run", "run").code
        == 0
    )
    ended = call(tmp_path, "evaluate", "run", "--num_rows", 50)
    assert re.search(
        r"rate of 50 rows in nats: mutual information .*, total correlation .*, dimension kl",
        ended.out,
    )


def test_a_class_of_the_users_own_is_trained_and_must_be_allowed_to_be_loaded(tmp_path):
    (tmp_path / "my_prior.py").write_text(
        "from pyro_vae import StandardNormalPrior\nclass MyPrior(StandardNormalPrior): pass\n"
    )
    arguments = (
        "train",
        *SMALL,
        "--training.epochs",
        1,
        "--run",
        "run",
        "--vae.prior",
        "my_prior.MyPrior",
    )
    assert call(tmp_path, *arguments).code == 0
    refused = call(tmp_path, "evaluate", "run")
    assert refused.code == 2
    assert "got my_prior.MyPrior: allow my_prior by name if you trust it" in refused.err
    assert call(tmp_path, "evaluate", "run", "--allow", "my_prior", "--num_rows", 20).code == 0
    sys.modules.pop("my_prior")


# Mistakes

MISTAKES = [
    (["mnist20d"], "'preset' must be one of .*; the nearest is 'mnist-20d'"),
    (["no/such/file.yaml"], "'preset' must be one of"),
    (
        ["--vae.latent_dims", "3"],
        "'--vae.latent_dims' is no setting; the nearest is '--vae.latent_dim'",
    ),
    (["--training.epochs", "many"], "'training.epochs' accepts a whole number, got many"),
    (["--training.epochs", "0"], "'training.epochs' must be a whole number of at least 1, got 0"),
    (["--vae.latent_dim", "0"], "'vae.latent_dim' must be a whole number of at least 1, got 0"),
    (["--vae.prior", "NormalLikelihood"], "'vae.prior' accepts a subclass of Prior"),
    (["--vae.likelihood", "BernouliLikelihood"], "the nearest is 'BernoulliLikelihood'"),
    (["--vae.decoder", "torch.nn.Linear"], "'vae.decoder.in_features' and"),
    (
        ["--training.batches.size", "1501", "--training.batches.drop_last", "true"],
        "'data' must have at least one batch of 1501 rows, got 1500 rows",
    ),
    (
        ["--vae.likelihood", "BernoulliLikelihood"],
        "'x' must be 0 or 1 for BernoulliLikelihood, got values from 0 to 16",
    ),
    (
        ["--vae.likelihood.total_count", "15"],
        "'x' must hold whole levels from 0 to total_count = 15",
    ),
    (["--training.patience", "3"], "'training.patience' needs validation rows, got 3 without any"),
    (
        ["--data.validation_fraction", "1"],
        "'data.validation_fraction' must lie in \\[0, 1\\), got 1.0",
    ),
    (
        ["--data.max_level", "15"],
        "'data.max_level' must be at least the highest level of the data, 16, got 15",
    ),
    (
        ["--data.source", "ArrayFile", "--data.source.path", "nan.npy"],
        "'data' must be finite, got NaN or infinity",
    ),
    (
        ["--data.source", "ArrayFile", "--data.source.path", "none.npy"],
        "'data.source.path' must be a .npy or .npz file of numbers",
    ),
    (["--training.optimizer.lr", "-1"], "lr|learning rate"),
    (["--device", "gpu"], "'device'"),
    (["--config", "none.yaml"], "'config' accepts a YAML file or YAML itself, got none.yaml"),
    (["--run", "nan.npy"], "'run' must be a folder that can be written, got nan.npy"),
    (
        ["--run", "nan.npy/run", "--overwrite"],
        "'run' must be a folder that can be written, got nan.npy/run",
    ),
    (
        ["--run", "none", "--resume"],
        "'run' must be the folder of a run, got none, which does not exist",
    ),
]


def assert_one_error(ended, sentence):
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(line)
    assert (ended.code, ended.out) == (2, "")


# The tests of settings make these mistakes too, with the same sentences.
ALSO_OF_SETTINGS = (
    "--vae.latent_dims",
    "--vae.prior",
    "--vae.likelihood BernouliLikelihood",
    "--vae.decoder",
    "--config",
)


def marked(arguments, sentence):
    words = " ".join(arguments)
    is_known = words.startswith(ALSO_OF_SETTINGS)
    return pytest.param(arguments, sentence, marks=[pytest.mark.slow] * is_known, id=words)


@pytest.mark.parametrize(("arguments", "sentence"), [marked(*mistake) for mistake in MISTAKES])
def test_a_mistake_ends_training_with_one_sentence_and_nothing_is_written(
    tmp_path, arguments, sentence
):
    np.save(tmp_path / "nan.npy", np.full((600, 1, 8, 8), np.nan))
    before = contents(tmp_path)
    assert_one_error(call(tmp_path, "train", *arguments), sentence)
    assert contents(tmp_path) == before
    assert [file.name for file in tmp_path.iterdir()] == ["nan.npy"]


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        ("evaluate", ["none"], "'run' must be the folder of a run, got none, which does not exist"),
        (
            "evaluate",
            ["run", "--data", "none.npy"],
            "'data' must be a folder of images, or a .npy, .npz, .*, got none.npy: No such file",
        ),
        (
            "evaluate",
            ["run", "--data", "flat.npy"],
            r"'data' must have rows of the shape \(1, 8, 8\), as the run, got \(64,\)",
        ),
        (
            "evaluate",
            ["run", "--num_samples", "0"],
            "'num_samples' must be a whole number of at least 1, got 0",
        ),
        ("evaluate", ["run", "--num_importance_samples", "-1"], "'num_importance_samples'"),
        ("evaluate", ["run", "--num_rows", "0"], "'(num_rows|data)' must"),
        ("evaluate", ["run", "--split", "tests"], "split"),
        (
            "evaluate",
            ["run", "--num_row", "3"],
            "'--num_row' is no setting; the nearest is '--num_rows'",
        ),
        ("evaluate", [], "run"),
        ("sample", ["none"], "'run' must be the folder of a run, got none, which does not exist"),
        ("sample", ["run", "--start", "297"], "'start' must be a test row from 0 to 296, got 297"),
        ("sample", ["run", "--end", "-1"], "'end' must be a test row from 0 to 296, got -1"),
        ("sample", ["run", "--num_rows", "0"], "'num_rows' must"),
        ("sample", ["run", "--steps", "1"], "'steps' must be at least 2, for both ends, got 1"),
        ("sample", ["run", "--num_rows", "1000000"], "'num_rows' must be at most 200"),
        ("sample", ["run", "--dims", "[0,5]"], "'dims' must be two dimensions from 0 to 1"),
        ("sample", ["run", "--y", "3"], "'y' is for a VAE with a context, got 3"),
        ("sample", ["run", "--out", ""], "'out' must be the name of a folder"),
        ("evaluate", ["run", "run"], "'run' is one argument too many"),
        ("evaluate", ["run", "--split", "test", "--data", "flat.npy"], "'split' chooses rows"),
        ("detect", ["run", "flat.npy", "--out", "flat.npy"], "'out' must be a new file, or one of"),
        ("detect", ["run", "flat.npy", "--out", "run/history.csv"], "got run/history.csv, which"),
        ("sample", ["run", "--out", "run"], "'out' must be a folder without a run, got run"),
        ("diagnose", ["run", "--out", "run/."], "'out' must be a folder without a run, got run/."),
        ("detect", ["run", "flat.npy", "--out", "run"], "'out' must be a file, got the folder run"),
        ("detect", ["run", "flat.npy", "--false_positive_rate", "2"], "a number between 0 and 1"),
        ("diagnose", ["run", "--out", "flat.npy"], "'out' must be a folder that can be written"),
        ("diagnose", ["run", "--seed", "-1"], "'seed' must be a whole number of at least 0"),
        ("sample", ["run", "--steps", "0"], "'steps' must"),
        ("sample", ["run", "--out", "flat.npy"], "flat.npy"),
    ],
    ids=str,
)
def test_a_mistake_ends_the_other_scripts_with_one_sentence_and_nothing_is_written(
    trained, script, arguments, sentence
):
    folder, _ = trained
    np.save(folder / "flat.npy", np.zeros((5, 64)))
    before = sorted(folder.rglob("*")), contents(folder)
    assert_one_error(call(folder, script, *arguments), sentence)
    assert (sorted(folder.rglob("*")), contents(folder)) == before


@pytest.mark.slow
def test_a_run_without_validation_rows_has_none_to_evaluate(tmp_path):
    assert (
        call(
            tmp_path,
            "train",
            *SMALL,
            "--data.validation_fraction=0",
            "--training.epochs=1",
            "--run=run",
        ).code
        == 0
    )
    assert_one_error(
        call(tmp_path, "evaluate", "run", "--split", "validation"), "'split' must be train or test"
    )


@pytest.mark.parametrize("script", ["train", "evaluate", "sample"])
def test_help_explains_every_option(tmp_path, script):
    ended = call(tmp_path, script, "--help")
    assert (ended.code, ended.err) == (0, "")
    explained = importlib.import_module(f"pyro_vae.commands.{script}").__doc__.split()[:3]
    assert " ".join(explained).rstrip(":") in ended.out
    assert "--run" in ended.out or " run " in ended.out


@pytest.mark.slow  # all other mistakes are made in this process
def test_a_mistake_in_a_process_of_its_own_is_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, SCRIPTS / "train.py", "--training.epochs", "many"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: 'training.epochs' accepts a whole number, got many.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_keeps_its_settings_except_those_that_are_asked_for_now(trained, tmp_path):
    shutil.copytree(trained[0] / "run", tmp_path / "run")
    ended = call(
        tmp_path,
        "train",
        "--training.epochs",
        5,
        "--run",
        "run",
        "--resume",
        "--training.optimizer.lr",
        "1e-2",
    )
    assert ended.code == 0
    assert "From epoch 5 on 'optimizer.lr' is 0.01, was 0.001.\n" in ended.err
    # Divided by 10 after every second epoch, as before.
    rates = [row.learning_rate for row in RunFolder(tmp_path / "run").fit().history]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-4])
    assert "5,optimizer.lr,0.001,0.01" in (tmp_path / "run" / "changes.csv").read_text()
    settings = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert settings["training"]["epochs"] == 5
    assert settings["training"]["optimizer"]["init_args"]["lr"] == 1e-2
    assert settings["vae"]["decoder"]["init_args"]["hidden"] == [16]
    assert call(tmp_path, "evaluate", "run", "--num_rows", 20).code == 0


# Diagnosing


@pytest.mark.slow
def test_diagnosing_writes_the_verdict_as_json_and_as_a_page_with_figures(trained, monkeypatch):
    monkeypatch.setattr(diagnosis, "inference_gaps", partial(inference_gaps, num_steps=3))
    folder, _ = trained
    few = ("--num_rows", 200, "--num_samples", 30, "--num_annealed", 5, "--num_temperatures", 5)
    before = set(contents(folder / "run"))
    ended = call(folder, "diagnose", "run", *few, draws=True)
    assert ended.code == 0, ended.err
    written = folder / "run" / "diagnosis"
    report = json.loads((written / "diagnosis.json").read_text())
    page = (written / "diagnosis.md").read_text()
    for sentence in report["verdict"]:
        assert sentence in ended.out
        assert sentence in page
    figures = ["coverage", "khat", "ranks", "sandwich", "worst_rows"]
    assert sorted(file.stem for file in written.glob("*.png")) == figures
    assert all(f"({name}.png)" in page for name in figures)
    assert set(contents(folder / "run")) - before == {
        Path("diagnosis") / file.name for file in written.iterdir()
    }


def test_a_diagnosis_that_is_too_small_is_refused_in_a_sentence(trained):
    folder, _ = trained
    ended = call(folder, "diagnose", "run", "--num_rows", 3)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: 'num_rows' must be 200 or more, to calibrate, got 3.\n"


def test_a_choice_that_there_is_not_is_explained_with_the_nearest_one(trained):
    folder, _ = trained
    ended = call(folder, "diagnose", "run", "--weights", "bset")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: 'weights' accepts best or last, got bset; the nearest is 'best'.\n"
