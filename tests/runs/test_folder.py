"""The run folder: what comes back from it, what a crash leaves of it, and what is refused."""

import copy
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch
import yaml

from pyro_vae import Epoch, Execution, Training, evaluate, fit, load, log_weights
from pyro_vae.runs import FORMAT, RunFolder, build_vae, load_settings, read_preset, write_atomically
from pyro_vae.runs.formats import upgraded
from pyro_vae.runs.trust import trusted_packages

X_SHAPE = (1, 8, 8)


def levels(num_rows=40):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(17, (num_rows, *X_SHAPE), generator=generator).float()


def settings_text(**vae):
    tree, _ = read_preset("digits")
    tree["vae"] |= vae
    return yaml.safe_dump(tree)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder whose best weights are not its last ones, and the Fit that it was written from."""
    folder = RunFolder(tmp_path_factory.mktemp("trained") / "run")
    folder.begin(settings_text(), X_SHAPE)
    vae = build_vae(load_settings(folder.path).vae, X_SHAPE)
    training = Training(
        epochs=3, optimizer=partial(torch.optim.Adam, lr=1e-3), execution=Execution(trace=False)
    )
    result = fit(vae, levels(200), training, validation=levels())
    best = {name: tensor + 0.01 for name, tensor in result.weights.items()}
    result = result._replace(best_weights=best)
    folder.save(result)
    return folder.path, result


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run folder, to spoil."""
    return shutil.copytree(trained[0], tmp_path / "run")


def assert_same(first, second):
    """Two trees of tensors and numbers are equal bit for bit."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        assert type(first) is type(second)
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


def test_what_was_saved_comes_back(trained):
    path, result = trained
    assert_same(RunFolder(path).fit(), result)
    assert_same(RunFolder(path).weights("best"), result.best_weights)
    assert_same(RunFolder(path).weights("last"), result.weights)
    assert RunFolder(path).info().x_shape == X_SHAPE
    assert RunFolder(path).info().format == FORMAT
    assert RunFolder(path).info().versions["torch"] == torch.__version__.split("+")[0]


def test_the_history_is_a_table_of_the_epochs(trained):
    path, result = trained
    header, *rows = (path / "history.csv").read_text().splitlines()
    assert header.split(",") == list(Epoch._fields)
    assert [[float(number or "nan") for number in row.split(",")][:4] for row in rows] == [
        list(map(float, epoch[:4])) for epoch in result.history
    ]


@pytest.mark.parametrize("weights", ["best", "last"])
def test_load_gives_the_weights_that_were_asked_for(trained, weights):
    path, result = trained
    vae = load(path, weights)
    assert not vae.training
    assert_same(vae.state_dict(), result.best_weights if weights == "best" else result.weights)


def test_load_gives_the_best_weights_unless_told_otherwise(trained):
    path, result = trained
    assert_same(load(str(path)).state_dict(), result.best_weights)


@pytest.mark.slow
def test_load_in_another_process_gives_the_same_log_weights_bit_for_bit(trained, tmp_path):
    path, _ = trained
    code = """
import sys, torch
from pyro_vae import load, log_weights
vae, x = load(sys.argv[1]), torch.load(sys.argv[2])
torch.manual_seed(5)
torch.save(log_weights(vae.model, vae.guide, x, num_samples=7).detach(), sys.argv[3])
"""
    x, out = levels(), tmp_path / "log_weights.pt"
    torch.save(x, tmp_path / "x.pt")
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "x.pt", out], check=True, env=environment
    )
    vae = load(path)
    torch.manual_seed(5)
    assert torch.equal(torch.load(out), log_weights(vae.model, vae.guide, x, num_samples=7))


def test_metrics_are_saved_as_json(run):
    evaluation = evaluate(load(run), levels(), num_samples=2, num_importance_samples=2)
    RunFolder(run).save_metrics(evaluation)
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics) == list(evaluation._fields)
    assert metrics["negative_elbo"] == evaluation.negative_elbo._asdict()


def test_a_new_run_removes_what_an_earlier_one_left(run):
    (run / "notes.txt").write_text("mine")
    RunFolder(run).begin(settings_text(latent_dim=3), (2, 8, 8))
    assert sorted(file.name for file in run.iterdir()) == ["notes.txt", "run.json", "settings.yaml"]
    assert RunFolder(run).info().x_shape == (2, 8, 8)
    assert load_settings(run).vae.latent_dim == 3


@pytest.mark.parametrize("name", ["new", "new/er/est", "empty"])
def test_a_new_or_empty_folder_is_free_and_stays_as_it_is(tmp_path, name):
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / name).check_free(overwrite=False)
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_a_folder_that_holds_files_is_free_only_to_be_overwritten(run):
    with pytest.raises(
        ValueError, match=r"'run' must be a new or empty folder, got .*pass --overwrite"
    ):
        RunFolder(run).check_free(overwrite=False)
    RunFolder(run).check_free(overwrite=True)
    assert load(run)


@pytest.mark.parametrize("name", ["file", "file/run", "file/a/b"])
def test_a_place_in_a_file_is_not_free(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="'run' must be a folder that can be written"):
        RunFolder(tmp_path / name).check_free(overwrite=True)


# A crash while writing


def test_a_crash_while_writing_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def crash(file):
        file.write(b"ne")
        file.flush()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, crash)
    assert path.read_bytes() == b"old"
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_crash_in_any_file_of_a_checkpoint_leaves_a_folder_that_loads_and_resumes(
    run, trained, monkeypatch, writes
):
    _, result = trained
    newer = result._replace(weights={name: tensor * 2 for name, tensor in result.weights.items()})
    save, calls = torch.save, []

    def crash(tensors, file):
        calls.append(tensors)
        if len(calls) <= writes:
            return save(tensors, file)
        file.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match="disk full"):
        RunFolder(run).save(newer)
    assert_same(RunFolder(run).fit().weights, (newer if writes else result).weights)
    assert_same(load(run, "last").state_dict(), result.weights)
    assert_same(load(run, "best").state_dict(), result.best_weights)


# What is refused


class Evil:
    """A pickle of this runs code when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def assert_refused(path, sentence, weights="best"):
    with pytest.raises(ValueError, match=sentence) as caught:
        load(path, weights)
    assert "\n" not in str(caught.value)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    assert_refused(
        tmp_path / "none", r"'run' must be the folder of a run, got .*none, which does not exist"
    )


@pytest.mark.parametrize("name", ["run.json", "settings.yaml", "best.pt"])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    assert_refused(
        run, rf"'run' must be the folder of a run, got {re.escape(str(run))}, which has no {name}"
    )


def test_a_run_without_a_state_cannot_be_resumed(run):
    (run / "state.pt").unlink()
    with pytest.raises(ValueError, match=r"which has no state.pt"):
        RunFolder(run).fit()


@pytest.mark.parametrize("size", [0, 10, 1000, -1])
@pytest.mark.parametrize("name", ["best", "state"])
def test_truncated_weights_are_refused(run, name, size):
    file = run / f"{name}.pt"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(
        ValueError, match=rf"{name}.pt must be a file of weights, but is truncated or foreign"
    ) as caught:
        load(run) if name == "best" else RunFolder(run).fit()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["best", "state"])
@pytest.mark.parametrize(
    "wrap", [lambda evil: evil, lambda evil: {"weights": evil}], ids=["alone", "in a dict"]
)
@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_the_code_in_a_foreign_pickle_does_not_run(run, tmp_path, name, wrap, write):
    mark = tmp_path / "mark"
    with (run / f"{name}.pt").open("wb") as file:
        write(wrap(Evil(mark)), file)
    with pytest.raises(
        ValueError, match=rf"{name}.pt must be a file of weights, but is truncated or foreign"
    ):
        load(run) if name == "best" else RunFolder(run).fit()
    assert not mark.exists()


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), 5], ids=["list", "tensor", "number"])
def test_a_file_that_holds_no_state_dict_is_refused(run, content):
    torch.save(content, run / "best.pt")
    assert_refused(run, r"best.pt must hold a state dict, got")


@pytest.mark.parametrize(
    "content",
    [{}, {"history": []}, {"history": [(1, 2)]}, {"history": 3}, {"weights": {}, "optimizer": {}}],
    ids=str,
)
def test_a_state_of_something_else_is_refused(run, content):
    torch.save(content, run / "state.pt")
    with pytest.raises(ValueError, match=r"state.pt must hold the state of a run, but does not"):
        RunFolder(run).fit()


@pytest.mark.parametrize(
    "vae", [{"latent_dim": 3}, {"likelihood": "pyro_vae.OneHotCategoricalLikelihood"}], ids=str
)
def test_weights_of_another_architecture_are_refused(run, vae):
    mlp = {"class_path": "pyro_vae.MLP", "init_args": {"hidden": [5]}}
    (run / "settings.yaml").write_text(settings_text(**vae, encoder=mlp))
    assert_refused(
        run,
        r"best.pt must hold the weights of this VAE, but does not: .*(has the shape|it has|it lacks)",
    )


@pytest.mark.parametrize(
    "content", [{}, {"a": torch.zeros(2)}, {"likelihood.network.layers.0.bias": 3}], ids=str
)
def test_weights_of_something_else_are_refused(run, content):
    torch.save(content, run / "last.pt")
    assert_refused(run, r"last.pt must hold the weights of this VAE, but does not", "last")


def test_a_newer_format_is_refused_and_says_who_wrote_it(run):
    info = json.loads((run / "run.json").read_text()) | {
        "format": FORMAT + 1,
        "versions": {"pyro_vae": "9.9"},
    }
    (run / "run.json").write_text(json.dumps(info))
    assert_refused(
        run, rf"must have a run format up to {FORMAT}, got {FORMAT + 1}: .* newer pyro_vae \(9.9\)"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"run"',
        b"{}",
        b'{"x_shape": [1, 8, 8], "format": 1}',
        b'{"x_shape": 5, "format": 1, "versions": {}}',
        b'{"x_shape": [1, 8, 8], "format": "one", "versions": {}}',
        b'{"x_shape": [1, 8, 8], "format": 2, "versions": null}',
        b'{"x_shape": [1, 8, 8], "format": 1, "versions": {}, "more": 1}',
        b"\xff\xfe\x00",
    ],
    ids=str,
)
def test_a_damaged_description_is_refused(run, content):
    (run / "run.json").write_bytes(content)
    assert_refused(
        run, r"run.json must .* damaged|run.json must be text in UTF-8|must have a run format up to"
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"vae: [", r"settings.yaml must be YAML, but is damaged"),
        (b"\x00\x01", r"settings.yaml must be YAML, but is damaged"),
        (b"\xff\xfe\x00", r"settings.yaml must be"),
        (b"", r"settings.yaml must hold a tree of settings, got nothing"),
        (b"- 1", r"settings.yaml must hold a tree of settings, got list"),
        (
            b"!!python/object/apply:os.system ['true']",
            r"settings.yaml must be YAML, but is damaged",
        ),
        (b"vae: {latent_dim: 2}", r"required|must"),
    ],
    ids=str,
)
def test_damaged_settings_are_refused(run, content, sentence):
    (run / "settings.yaml").write_bytes(content)
    assert_refused(run, sentence)


# Settings of format 1


ONE_DISPERSION = {"class_path": "pyro_vae.LearnedScale"}
COUNTS = "pyro_vae.likelihoods.NegativeBinomialLikelihood"


@pytest.mark.parametrize(
    ("likelihood", "expected"),
    [
        (COUNTS, {"class_path": COUNTS, "init_args": {"dispersion": ONE_DISPERSION}}),
        (
            {"class_path": COUNTS, "init_args": {"dispersion": None}},
            {"class_path": COUNTS, "init_args": {"dispersion": ONE_DISPERSION}},
        ),
        (
            {"class_path": COUNTS, "init_args": {"dispersion": 0.5}},
            {"class_path": COUNTS, "init_args": {"dispersion": 0.5}},
        ),
        (
            {"class_path": "P", "init_args": {"columns": [{"size": 2, "likelihood": COUNTS}]}},
            {
                "class_path": "P",
                "init_args": {
                    "columns": [
                        {
                            "size": 2,
                            "likelihood": {
                                "class_path": COUNTS,
                                "init_args": {"dispersion": ONE_DISPERSION},
                            },
                        }
                    ]
                },
            },
        ),
        (
            "pyro_vae.PoissonLikelihood",
            {"class_path": "pyro_vae.PoissonLikelihood", "init_args": {}},
        ),
    ],
)
def test_settings_of_format_1_say_what_they_meant(likelihood, expected):
    tree = {"vae": {"latent_dim": 2, "likelihood": likelihood}, "device": "cpu"}
    before = copy.deepcopy(tree)
    received = upgraded(tree, 1)
    assert received["vae"] == {
        "encoder_sees": "pyro_vae.AsIs",
        "latent_dim": 2,
        "likelihood": expected,
    }
    assert (tree, upgraded(received, 1), upgraded(tree, 2)) == (before, received, tree)


# Settings of formats 1 and 2


@pytest.mark.parametrize("written_in", [1, 2])
def test_how_to_run_was_not_yet_a_group(written_in):
    training = {"epochs": 3, "trace": False, "compile": "auto", "precision": "float32"}
    execution = {"trace": False, "compile": "auto", "precision": "float32"}
    received = upgraded({"training": training}, written_in)
    assert received["training"] == {"epochs": 3, "execution": execution}
    assert upgraded(received, written_in) == received
    assert upgraded({"training": {"precision": "bfloat16"}}, written_in)["training"] == {
        "execution": {"precision": "bfloat16"}
    }
    assert upgraded({"training": {"trace": True}}, 3) == {"training": {"trace": True}}


REFUSED_BY_FOLDER = [
    (lambda run: run.begin(torch.zeros(3), X_SHAPE), "'settings' must be a string, got"),
    (lambda run: run.begin("a: [1", X_SHAPE), "'settings' must be YAML, but is damaged"),
    (lambda run: run.begin("digits", X_SHAPE), "'settings' must hold a tree of settings, got str."),
    (lambda run: run.begin(settings_text(), "64"), "'x_shape' must be a sequence of values, each a"),
    (lambda run: run.begin(settings_text(), (0, 8)), "'x_shape' must hold positive whole numbers, got"),
    (lambda run: run.begin(settings_text(), X_SHAPE, levels()), "'data' must be a DataRecord or None"),
    (lambda run: run.save(None), "'fit' must be a Fit, got None."),
    (lambda run: run.save_metrics({"elbo": 1.0}), "'evaluation' must be an Evaluation, got {'elbo'"),
    (lambda run: run.save_failure(ValueError("x")), "'sentence' must be a string, got ValueError('x')"),
    (lambda run: run.save_failure("it failed"), "'run' must be a folder that begin() has made, got"),
    (lambda run: run.check_free("no"), "'overwrite' must be True or False, got 'no'."),
    (lambda run: run.check_data(None), "'found' must be a DataRecord, got None."),
    (lambda run: run.settings(None), "'allow' must be a string or a sequence of values"),
    (lambda run: run.weights(0), "'name' must be a string, got 0."),
    (lambda run: RunFolder(None), "'path' of RunFolder must be a string or a path, got None."),
    (lambda run: load(None), "'run' must be a string or a path, got None."),
    (lambda run: load([run]), "'run' must be a string or a path, got"),
    (lambda run: load(run.path, allow=[None]), "each a string, got a list with None."),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REFUSED_BY_FOLDER)))
def test_wrong_arguments_are_refused_and_leave_no_folder(tmp_path, number):
    call, sentence = REFUSED_BY_FOLDER[number]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call(RunFolder(tmp_path / "new"))
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_named_as_a_file(trained):
    path, _ = trained
    file = path / "best.pt"
    sentence = f"got {file}, which is a file: give the folder {path}."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load(file)


def test_one_package_may_be_allowed_by_a_string():
    assert trusted_packages("mine") == trusted_packages(["mine"])
    with pytest.raises(
        ValueError, match=r"'allow' must hold names of packages, got 'mine\.Part'\."
    ):
        trusted_packages("mine.Part")
