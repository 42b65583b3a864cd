"""The listing of runs: what is read of them, and that a bad folder is one line."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from command_line import command, one_error

from pyro_vae import Epoch, Fit
from pyro_vae.runs import Origin, RunFolder, differing, list_runs, read_preset, short_names

X_SHAPE = (1, 8, 8)
ORIGIN = Origin("pyro-vae train digits", "0123456789abcdef0123-dirty", "cpu")


def epochs(*seconds):
    return [
        Epoch(number, 1e-3, 1.0, 200.0 - number, None, 150.0 - number, duration)
        for number, duration in enumerate(seconds, start=1)
    ]


def estimate(mean):
    errors = {"monte_carlo_error": 0.25, "row_error": 1.5}
    return {"mean": mean, **errors, "num_samples": 10, "num_rows": 7}


def write(place, origin=ORIGIN, metrics=143.5, durations=(1.0, 2.0), training=(), **vae):
    """Write the folder of a run that was never trained."""
    tree, _ = read_preset("digits")
    tree["vae"] |= vae
    tree["training"] |= dict(training)
    folder = RunFolder(place)
    folder.begin(yaml.safe_dump(tree), X_SHAPE, None, origin)
    weights = {"weight": torch.zeros(1)}
    folder.save(Fit(epochs(*durations), weights, weights, {}, None, "finished"))
    if metrics is not None:
        fields = {"negative_elbo": estimate(metrics), "log_marginal": estimate(-metrics)}
        (folder.path / "metrics.json").write_text(json.dumps(fields))
    return folder.path


def prior(name, **arguments):
    return {"class_path": f"pyro_vae.{name}", "init_args": arguments}


@pytest.fixture
def runs(tmp_path):
    """A folder of three good runs, one of them deeper."""
    write(tmp_path / "runs" / "run-10", latent_dim=5)
    write(tmp_path / "runs" / "run-9", metrics=None, durations=(3.0,))
    write(tmp_path / "runs" / "sweep" / "a", prior=prior("VampPrior", num_components=50))
    return tmp_path / "runs"


# Facts of a run


def test_run_json_has_the_origin_and_the_seconds_of_all_epochs(tmp_path):
    fields = json.loads((write(tmp_path / "run", durations=(1.0, 2.5)) / "run.json").read_text())
    assert fields["seconds"] == 3.5
    assert {name: fields[name] for name in Origin._fields} == ORIGIN._asdict()


def test_a_folder_without_origin_loads(tmp_path):
    path = write(tmp_path / "run")
    fields = json.loads((path / "run.json").read_text())
    known = {name: fields[name] for name in ("x_shape", "format", "versions", "data", "data_path")}
    (path / "run.json").write_text(json.dumps(known))
    info = RunFolder(path).info()
    assert (info.command, info.commit, info.device, info.seconds) == (None, None, None, None)


@pytest.mark.parametrize("field", ["command", "commit", "device", "seconds"])
def test_an_origin_that_is_no_text_is_damaged(tmp_path, field):
    path = write(tmp_path / "run")
    fields = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(fields | {field: ["x"]}))
    with pytest.raises(ValueError, match="must describe a run, but is damaged"):
        RunFolder(path).info()


def test_a_command_that_resumes_follows_the_earlier_ones_once():
    origin = Origin("b")
    assert origin.after(None).command == "b"
    assert origin.after("a").command == "a && b"
    assert origin.after("a && b").command == "a && b"
    assert Origin().after(None).command is None


# Reading


def test_the_runs_below_a_folder_are_listed_in_their_natural_order(runs):
    found = list_runs(runs)
    assert [run.name for run in found.runs] == ["run-9", "run-10", str(Path("sweep", "a"))]
    assert found.unread == {}
    last = found.runs[1]
    assert last.history == epochs(1.0, 2.0)
    assert (last.seconds, last.info.commit) == (3.0, ORIGIN.commit)
    assert last.negative_elbo._asdict() == estimate(143.5)
    assert found.runs[0].negative_elbo is None


def test_a_run_folder_is_the_only_run_of_its_list(runs):
    (run,) = list_runs(runs / "run-9").runs
    assert run.name == "run-9"


def test_only_settings_that_differ_are_shown_and_those_of_a_class_where_it_is(runs):
    write(runs / "sweep" / "b", prior=prior("VampPrior", num_components=70))
    found = differing(list_runs(runs).runs)
    assert found["vae.latent_dim"] == [2, 5, 2, 2]
    assert found["vae.prior.num_components"] == [None, None, 50, 70]
    assert set(found) == {"vae.latent_dim", "vae.prior", "vae.prior.num_components"}


def test_an_argument_that_one_class_alone_has_does_not_differ(runs):
    assert "vae.prior.num_components" not in differing(list_runs(runs).runs)


def test_a_setting_is_named_by_its_last_part_unless_that_means_something_else():
    names = ["training.seed", "data.seed", "training.epochs", "vae.prior"]
    assert short_names(names, taken=("epochs",)) == [
        "training.seed",
        "data.seed",
        "training.epochs",
        "prior",
    ]


CODE = "pathlib.Path('was_run').touch()"
# Each list holds the one before it ten times.
ALIASES = "\n".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(20))
BAD = {
    "no run": {"notes.txt": "mine"},
    "no json": {"run.json": "{"},
    "no yaml": {"settings.yaml": "a: ["},
    "itself": {"settings.yaml": "vae: &v {prior: {class_path: a.B, init_args: *v}}"},
    "endless": {"settings.yaml": f"a0: &a0 [1]\n{ALIASES}"},
    "code": {"settings.yaml": f"vae: !!python/object/apply:eval [{CODE!r}]"},
    "no history": {"history.csv": "epoch,seconds\nx,y\n"},
    "no metrics": {"metrics.json": '{"negative_elbo": {"mean": [1]}}'},
    "list": {"metrics.json": "[]"},
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_one_line_and_the_others_are_listed(runs, tmp_path, name):
    if name == "no run":
        (runs / "bad").mkdir()
    else:
        write(runs / "bad")
    for file, text in BAD[name].items():
        (runs / "bad" / file).write_text(text)
    ended = command(tmp_path, "runs")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1].startswith("bad: ")
    assert ended.out.count("bad: ") == 1
    assert len(list_runs(runs).runs) == 3
    assert not (tmp_path / "was_run").exists()


def test_nothing_that_settings_name_is_imported(runs, tmp_path):
    (tmp_path / "my_parts.py").write_text("raise RuntimeError('imported')")
    write(runs / "own", decoder={"class_path": "my_parts.Net", "init_args": {}})
    ended = command(tmp_path, "runs")
    assert (ended.code, ended.err) == (0, "")
    assert "Net" in ended.out


# The table


def test_the_table_has_what_differs_the_numbers_with_errors_and_the_commands(runs, tmp_path):
    lines = command(tmp_path, "runs").out.splitlines()
    table = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[:4]}
    assert table["run"] == "latent_dim prior epochs -ELBO log p(x) time"
    numbers = "143.50 ± 0.25 ± 1.50 -143.50 ± 0.25 ± 1.50 3.0 s"
    assert table["run-10"] == f"5 StandardNormalPrior 2 {numbers}"
    assert table["run-9"] == "2 StandardNormalPrior 1 - - 3.0 s"
    assert lines[4:6] == ["", "run      commit    command"]
    assert lines[7] == "run-10   0123456+  pyro-vae train digits"


def test_a_wide_table_goes_on_below_and_no_line_is_longer_than_the_terminal(runs, tmp_path):
    long = ORIGIN._replace(command="pyro-vae train " + "x" * 300)
    many = {f"setting_{letter}": letter for letter in "abcdefghij"}
    write(runs / ("name" * 30), origin=long, decoder=prior("MLP", **many))
    others = dict.fromkeys(many, "value" * 20)
    write(runs / "other", origin=long, decoder=prior("MLP", **others))
    out = command(tmp_path, "runs").out
    assert max(map(len, out.splitlines())) == 100
    for name in many:
        assert out.count(name) == 1


def test_a_folder_cannot_steer_the_terminal(runs, tmp_path):
    write(runs / "run-9", origin=Origin("a\x1b[2J", "\x1b[3J", None), latent_dim="\x1b[4J")
    RunFolder(runs / "run-9").save_failure("\x1b[5J")
    out = command(tmp_path, "runs").out
    assert "\x1b" not in out
    assert "run-9 failed: [5J" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none"], "'folder' must be a folder with runs, got none, which does not exist."),
        (["file"], "'folder' must be a folder with runs, got file, which is a file."),
        (["runs", "more"], "'more' is one argument too many."),
        (["runs", "--plot", "file"], "'plot' must be a new file, or one of an earlier call"),
        (["runs", "--plot", "a.jpg"], "'plot' must be a file that ends in .png, got a.jpg."),
        (
            ["empty", "--plot", "a/a.png"],
            "'folder' must hold a run with an epoch to plot, got empty.",
        ),
    ],
)
def test_a_mistake_is_one_sentence(runs, tmp_path, words, sentence):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    ended = command(tmp_path, "runs", *words)
    assert one_error(ended).startswith(sentence)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_histories_are_drawn_into_a_file_that_may_be_drawn_again(runs, tmp_path):
    for _ in range(2):
        ended = command(tmp_path, "runs", "--plot", "new/all.png")
        assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "new" / "all.png").read_bytes().startswith(b"\x89PNG")


def test_an_empty_folder_holds_no_runs(tmp_path):
    (tmp_path / "runs").mkdir()
    assert command(tmp_path, "runs").out == "runs holds no runs.\n"
