"""Training once for each seed, and training from the weights of another run."""

import json
import shutil
import statistics
import subprocess

import numpy as np
import pytest
import torch
from command_line import command, one_error

from pyro_vae import load
from pyro_vae.runs import RunFolder, read_metrics
from pyro_vae.runs.origin import commit

# A network that is trained in a blink, and has all the state there is.
SMALL = (
    *("train", "onehot", "--data.source.rows_per_class=10", "--training.batches.batches=2"),
    *("--vae.decoder.hidden=[4]", "--vae.encoder.hidden=[4]"),
    *("--device=cpu", "--training.execution.trace=false"),
)


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_same_weights(first, second):
    first, second = RunFolder(first).weights("last"), RunFolder(second).weights("last")
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the runs of two seeds, and how their training ended."""
    folder = tmp_path_factory.mktemp("seeds")
    return folder, command(folder, *SMALL, "--epochs=1", "--seeds=3,1", "--run=all")


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the folder, to spoil."""
    return shutil.copytree(trained[0], tmp_path / "copy")


def test_there_is_a_run_for_each_seed_as_that_seed_gives_it(trained, tmp_path):
    folder, ended = trained
    assert ended.code == 0, ended.err
    assert sorted(place.name for place in (folder / "all").iterdir()) == ["seed-1", "seed-3"]
    assert command(tmp_path, *SMALL, "--epochs=1", "--seed=3", "--run=alone").code == 0
    assert_same_weights(folder / "all" / "seed-3", tmp_path / "alone")


def test_the_last_line_has_mean_and_deviation_over_the_seeds(trained):
    folder, ended = trained
    metrics = [read_metrics(folder / "all" / f"seed-{seed}") for seed in (1, 3)]
    parts = []
    for name, title in (("negative_elbo", "-ELBO"), ("log_marginal", "log p(x)")):
        means = [found[name].mean for found in metrics]
        spread = abs(means[0] - means[1]) / 2**0.5  # n - 1 in the denominator
        parts.append(f"{title} {statistics.fmean(means):.4f} ± {spread:.4f}")
    assert ended.out.splitlines()[-1] == (
        f"Mean ± standard deviation over 2 seeds, in nats per row: {parts[0]}, {parts[1]}."
    )


def test_run_json_tells_how_the_run_came_about(trained):
    folder = trained[0] / "all" / "seed-3"
    fields = json.loads((folder / "run.json").read_text())
    words = " ".join(SMALL).replace("--vae.decoder.hidden=[4]", "'--vae.decoder.hidden=[4]'")
    words = words.replace("--vae.encoder.hidden=[4]", "'--vae.encoder.hidden=[4]'")
    assert fields["command"] == f"pyro-vae {words} --epochs=1 --seeds=3,1 --run=all"
    assert (fields["device"], fields["commit"]) == ("cpu", commit(trained[0]))
    assert fields["seconds"] == sum(row.seconds for row in RunFolder(folder).fit().history)


@pytest.mark.slow
def test_finished_runs_are_skipped_and_interrupted_and_new_ones_are_trained(folder):
    done, interrupted = folder / "all" / "seed-3", RunFolder(folder / "all" / "seed-1")
    before = contents(done)
    stopped = interrupted.fit()._replace(outcome="interrupted")
    interrupted.save(stopped)
    ended = command(folder, *SMALL, "--epochs=1", "--seeds=3,1,2", "--run=all", "--resume")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("The run in all/seed-3 is finished.\nFinished after 1 epoch.")
    assert ended.out.count("Finished after 1 epoch.") == 2
    assert contents(done) == before
    assert interrupted.fit().outcome == "finished"
    assert "2 seeds" not in ended.out
    assert {place.name for place in (folder / "all").iterdir()} == {"seed-1", "seed-2", "seed-3"}


@pytest.mark.slow
def test_more_epochs_resume_every_run_and_are_told_in_run_json(folder, tmp_path):
    ended = command(folder, *SMALL, "--epochs=2", "--seeds=3,1", "--run=all", "--resume")
    assert ended.code == 0, ended.err
    assert command(tmp_path, *SMALL, "--epochs=2", "--seed=3", "--run=alone").code == 0
    run = folder / "all" / "seed-3"
    assert_same_weights(run, tmp_path / "alone")
    info = RunFolder(run).info()
    first, second = info.command.split(" && ")
    assert (first.endswith("--run=all"), second.endswith("--resume")) == (True, True)
    assert info.seconds == sum(row.seconds for row in RunFolder(run).fit().history)


SEEDS = "'seeds' must be two or more whole numbers such as 1,2,3, got "


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seeds=1"], f"{SEEDS}1."),
        (["--seeds="], f"{SEEDS}nothing."),
        (["--seeds=1,-2"], f"{SEEDS}1,-2."),
        (["--seeds=1,a"], f"{SEEDS}1,a."),
        (["--seeds=1,9223372036854775808"], SEEDS),
        (["--seeds=1,2,1"], "'seeds' must be different numbers, got 1 twice."),
        (["--seeds=1,2", "--seed=1"], "'seeds' trains with several seeds and 'seed' with one"),
        (["--seeds=1,2", "--training.seed", "1"], "'seeds' trains with several seeds and 'seed'"),
        (["--seeds"], "'--seeds' needs a value, got none."),
        (["--seeds=1,3", "--run=all"], "'run' must be a new or empty folder, got all/seed-1"),
        (["--seeds=5,3", "--run=all"], "'run' must be a new or empty folder, got all/seed-3"),
        (["--seeds=1,2", "--run=all/seed-1"], "'run' must be a folder without a run"),
        (["--seeds=1,2", "--run="], "'run' must be the name of a folder, got an empty string."),
        (["--seeds=1,2", "--resume", "--overwrite"], "'resume' continues a run and 'overwrite'"),
        (["--init_from=none"], "'init_from' must be the folder of a run, got none, which does"),
        (["--init_from=all"], "'init_from' must be the folder of a run, got all, which has no"),
        (["--init_from="], "'init_from' must be the folder of a run, got an empty string"),
        (["--init_from"], "'--init_from' needs a value, got none."),
        (["--init_from=all/seed-1", "--latent_dim=3"], "'vae.latent_dim' must be 2 as in the run"),
        (["--init_from=all/seed-1", "--prior=VampPrior"], "'vae.prior' must be pyro_vae.Standard"),
        (
            ["--init_from=all/seed-1", "--vae.decoder.hidden=[5]"],
            "'vae.decoder.hidden' must be [4] as in the run of 'init_from', got [5]: to take all its",
        ),
        (
            ["--init_from=all/seed-1", "--resume", "--run=all/seed-3"],
            "'resume' continues a run and 'init_from' begins one: name one.",
        ),
        (
            ["--init_from=all/seed-1", "--data=rows.npy"],
            "'init_from' must be a run on rows of the shape (5,), got all/seed-1, whose rows have",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(trained, words, sentence):
    folder, _ = trained
    np.save(folder / "rows.npy", np.eye(5).repeat(10, 0))
    before = contents(folder)
    of_rows = [word for word in SMALL if not word.startswith("--data.source")]
    first = of_rows if "--data=rows.npy" in words else SMALL
    assert one_error(command(folder, *first, *words)).startswith(sentence)
    assert contents(folder) == before


# Starting from another run


def rows_file(folder, scale):
    """A file of real rows, 10 columns of this scale."""
    x = np.random.default_rng(0).normal(scale, scale, size=(60, 10))
    np.save(folder / f"rows{scale}.npy", x)
    return f"--data=rows{scale}.npy"


REAL = (
    *("train", "digits", "--likelihood=NormalLikelihood", "--data.transform=Identity"),
    *("--vae.decoder.hidden=[4]", "--vae.encoder.hidden=[4]", "--epochs=1"),
    *("--device=cpu", "--training.execution.trace=false"),
)


@pytest.mark.slow
def test_weights_and_constants_of_the_encoders_input_come_from_the_other_run(tmp_path):
    first = command(tmp_path, *REAL, rows_file(tmp_path, 1), "--run=first")
    assert first.code == 0, first.err
    words = (*REAL, rows_file(tmp_path, 2), "--lr=0", "--seed=8", "--run=second")
    ended = command(tmp_path, *words, "--init_from=first")
    assert ended.code == 0, ended.err
    best, started = load(tmp_path / "first").state_dict(), load(tmp_path / "second").state_dict()
    assert any(name.endswith(".center") for name in best)
    assert list(best) == list(started)
    assert all(torch.equal(best[name], started[name]) for name in best)
    info = RunFolder(tmp_path / "second").info()
    assert info.command.endswith("--run=second --init_from=first")
    shutil.rmtree(tmp_path / "first")
    assert load(tmp_path / "second").x_shape == (10,)  # no trace of the other run is needed


# The commit


def test_the_commit_of_a_folder_tells_of_changed_files(tmp_path):
    assert commit(tmp_path) is None

    def git(*words):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("a")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-m", "a")
    head = (tmp_path / ".git" / "HEAD").read_text().split()[1]
    digits = (tmp_path / ".git" / head).read_text().strip()
    git("tag", "v1")
    assert commit(tmp_path) == digits
    (tmp_path / "file").write_text("b")
    assert commit(tmp_path) == f"{digits}-dirty"
