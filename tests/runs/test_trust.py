"""Foreign run folders: nothing that their settings name is run, whichever reader meets them."""

import ast
import importlib
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from sweeps import thinned
from test_scripts import SCRIPTS, call

import pyro_vae
from pyro_vae import StandardNormalPrior, load
from pyro_vae.data import sources
from pyro_vae.runs import GROUPS, RunFolder, Settings, load_settings

FORMAT1 = Path(__file__).parent / "data" / "format1"
PACKAGE = Path(pyro_vae.__file__).parent


@pytest.fixture
def calls(monkeypatch):
    """What is recorded when the functions run that a foreign folder names."""
    calls = []

    def record(command: str = "", **kwargs):
        calls.append((command, kwargs))

    def made(in_shape, out_shape) -> torch.nn.Module:
        calls.append((in_shape, out_shape))

    monkeypatch.setattr(os, "system", record)
    monkeypatch.setattr(torch.hub, "load", record)
    monkeypatch.setattr(sources, "made", made, raising=False)
    return calls


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that nobody asked for; the file shows that it was imported."""
    mark = tmp_path / "imported"
    (tmp_path / "evil_parts.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nimport os, pyro_vae\nclass EvilPrior(pyro_vae.StandardNormalPrior): pass\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    yield mark
    sys.modules.pop("evil_parts", None)


def foreign(folder, place, value):
    """A complete run folder of which one setting is another."""
    shutil.copytree(FORMAT1, folder)
    tree = yaml.safe_load((folder / "settings.yaml").read_text())
    *groups, name = place.split(".")
    branch = tree
    for group in groups:
        branch = branch[group]
    branch[name] = value
    (folder / "settings.yaml").write_text(yaml.safe_dump(tree))
    return folder


# Each way to read a run

READERS = {
    "resume": ["train", "--resume", "--run", "run"],
    "preset": ["train", "run/settings.yaml", "--run", "new"],
    "config": ["train", "--config", "run/settings.yaml", "--run", "new"],
    "config with =": ["train", "--config=run/settings.yaml", "--run", "new"],
    "a link": ["train", "--config=link.yaml", "--run", "new"],
    "evaluate": ["evaluate", "run"],
    "data": ["evaluate", "run", "--data", "rows.npy"],
    "detect": ["detect", "run", "rows.npy"],
    "sample": ["sample", "run"],
    "diagnose": ["diagnose", "run"],
}
FOREIGN = {
    "a function": {"class_path": "os.system", "init_args": {"command": "ls"}},
    "a module that nobody asked for": {"class_path": "evil_parts.EvilPrior"},
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("value", FOREIGN)
def test_no_script_runs_what_a_foreign_folder_names(tmp_path, calls, evil, reader, value):
    foreign(tmp_path / "run", "vae.decoder", FOREIGN[value])
    (tmp_path / "link.yaml").symlink_to(tmp_path / "run" / "settings.yaml")
    script, *arguments = READERS[reader]
    ended = call(tmp_path, script, *arguments)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert FOREIGN[value]["class_path"] in ended.err
    assert not calls
    assert not evil.exists()
    assert not (tmp_path / "new").exists()


def test_the_description_is_read_before_the_settings(tmp_path, calls):
    run = foreign(tmp_path / "run", "vae.decoder", FOREIGN["a function"])
    (run / "run.json").write_text('{"x_shape": [1, 8, 8], "format": 99, "versions": {}}')
    for reader in ("resume", "preset", "config", "evaluate"):
        ended = call(tmp_path, *READERS[reader])
        assert "must have a run format up to 3, got 99" in ended.err
    assert not calls


def test_a_run_with_classes_of_the_users_own_is_resumed_when_they_are_allowed(tmp_path, evil):
    foreign(tmp_path / "run", "vae.prior", "evil_parts.EvilPrior")
    arguments = ["--resume", "--run", "run", "--vae.latent_dim", 3]
    refused = call(tmp_path, "train", *arguments)
    assert "got evil_parts.EvilPrior: allow evil_parts by name" in refused.err
    assert not evil.exists()
    refused = call(tmp_path, "train", *arguments, "--allow", "evil_parts")
    assert "'vae.latent_dim' must be 2 as in the run that is resumed, got 3" in refused.err
    assert evil.exists()


# Each way to name what must not run

NAMES = [
    "torch.os.system",
    "pyro_vae.data.datasets.os.system",
    "pyro_vae.runs.settings.resources.files",
    "pyro_vae.data.datasets.np.load",
    "torch.load",
    "torch.hub.load",
    "torch.nn.init.zeros_",
    "torch.multiprocessing.Process",
    "torch.utils.benchmark.Timer",
    "torch.utils.data.DataLoader",
    "pyro_vae.runs.folder.RunFolder",
    "pyro_vae.runs.folder.Path",
    "pyro_vae.data.sources.made",
    "torch.nn.Linear.__class__",
    "torch.__builtins__",
    "torch._C.ScriptModule",
    "torch.nn.Nothing",
    "torch.nothing.Linear",
    "torch.nn",
]
PLACES = ["vae.decoder", "training.optimizer", "vae.more"]


@pytest.mark.parametrize("place", thinned(PLACES, 3))
@pytest.mark.parametrize("name", NAMES)
def test_only_a_class_of_a_known_kind_is_reached_through_a_trusted_package(
    tmp_path, calls, place, name
):
    run = foreign(tmp_path / "run", place, {"class_path": name, "init_args": {"command": "ls"}})
    with pytest.raises(ValueError, match=rf"'{place}' must be .*, got {name}") as caught:
        load_settings(run)
    assert "\n" not in str(caught.value)
    assert not calls


@pytest.mark.parametrize(
    "form", [str, lambda name: [name], lambda name: {"lr": {"class_path": name}}]
)
def test_a_name_is_checked_in_every_form_and_at_every_depth(tmp_path, calls, form):
    value = {"class_path": "torch.optim.Adam", "init_args": {"lr": form("torch.os.system")}}
    with pytest.raises(
        ValueError, match=r"'training.optimizer.lr(\.lr)?' must be .*, got torch.os.system"
    ):
        load_settings(foreign(tmp_path / "run", "training.optimizer", value))
    assert not calls


@pytest.mark.parametrize("place", ["vae.path", "vae.prior.path", "training.path", "path"])
def test_a_setting_called_path_names_a_file_only_where_the_data_are_read(tmp_path, place):
    run = foreign(tmp_path / "run", "vae.prior", {})
    tree = yaml.safe_load((run / "settings.yaml").read_text())
    *groups, name = place.split(".")
    branch = tree
    for group in groups:
        branch = branch[group]
    branch[name] = "os.system"
    (run / "settings.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ValueError, match="got os.system|'path' is no setting"):
        load_settings(run)


def test_a_class_under_the_name_of_the_data_file_is_not_imported(tmp_path, evil):
    value = {"class_path": "pyro_vae.ArrayFile", "init_args": {"path": "evil_parts.EvilPrior"}}
    load_settings(foreign(tmp_path / "run", "data.source", value))
    assert not evil.exists()
    value["init_args"]["path"] = {"class_path": "evil_parts.EvilPrior"}
    with pytest.raises(ValueError, match="got evil_parts.EvilPrior"):
        load_settings(foreign(tmp_path / "other", "data.source", value))
    assert not evil.exists()


def test_a_short_name_does_not_find_a_class_of_another_package(tmp_path, evil):
    importlib.import_module("evil_parts")
    run = foreign(tmp_path / "run", "vae.prior", "EvilPrior")
    with pytest.raises(
        ValueError, match=r"'vae.prior' must be a class of pyro_vae, .*, got evil_parts.EvilPrior"
    ):
        load_settings(run)
    assert (
        type(load_settings(run, allow=["evil_parts"]).vae.prior(latent_dim=2)).__name__
        == "EvilPrior"
    )


def test_a_package_that_is_allowed_does_not_lead_to_others(tmp_path, evil, calls):
    run = foreign(tmp_path / "run", "vae.decoder", {"class_path": "evil_parts.os.system"})
    with pytest.raises(
        ValueError, match=r"'vae.decoder' must be a class of .*evil_parts, got evil_parts.os.system"
    ):
        load_settings(run, allow=["evil_parts"])
    assert not calls


@pytest.mark.parametrize(
    "place", ["vae", "vae.prior", "vae.decoder", "training.batches", "data.source"]
)
def test_a_word_in_a_foreign_folder_is_not_the_name_of_a_file_of_settings(
    tmp_path, monkeypatch, evil, place
):
    (tmp_path / "more").write_text(
        "{class_path: evil_parts.EvilPrior, prior: evil_parts.EvilPrior}"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'|settings may"):
        load_settings(foreign(tmp_path / "run", place, "more"))
    assert not evil.exists()


def test_settings_that_hold_themselves_are_refused_in_a_sentence(tmp_path):
    run = foreign(tmp_path / "run", "vae.prior", {})
    (run / "settings.yaml").write_text("vae: &a {prior: *a}\ndata: {}\ntraining: {}\n")
    with pytest.raises(ValueError, match="must hold a tree of settings, got one that holds itself"):
        load_settings(run)


@pytest.mark.parametrize("name", ["../other/best", "state", "", "best.pt", "/tmp/best"])
def test_only_the_weights_of_the_run_itself_are_loaded(tmp_path, name):
    shutil.copytree(FORMAT1, tmp_path / "run")
    shutil.copytree(FORMAT1, tmp_path / "other")
    with pytest.raises(ValueError, match=f"^'weights' must be best or last, got {name}\\.$"):
        load(tmp_path / "run", name)


# The user's own words: any class, but never a function


@pytest.mark.parametrize(
    "name", ["os.system", "torch.hub.load", "pyro_vae.data.sources.made", "functools.partial"]
)
@pytest.mark.parametrize("way", ["typed", "typed as a tree", "a file"])
def test_a_function_is_never_taken_for_a_class(tmp_path, calls, name, way):
    (tmp_path / "mine.yaml").write_text(
        f"vae: {{decoder: {{class_path: {name}, init_args: {{command: ls}}}}}}"
    )
    arguments = {
        "typed": ["--vae.decoder", name],
        "typed as a tree": ["--vae.decoder", f"{{class_path: {name}, init_args: {{command: ls}}}}"],
        "a file": ["--config", "mine.yaml"],
    }
    ended = call(tmp_path, "train", *arguments[way], "--run", "new")
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert "'vae.decoder'" in ended.err
    assert not calls
    assert not (tmp_path / "new").exists()


# That there is no other door


def functions_with(pattern):
    """The functions of the package and the scripts whose code, docstrings aside, has this pattern."""
    for file in (*PACKAGE.rglob("*.py"), *SCRIPTS.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        tree = ast.walk(ast.parse(text)) if re.search(pattern, text) else ()
        for function in (node for node in tree if isinstance(node, ast.FunctionDef)):
            if ast.get_docstring(function) is not None:
                del function.body[0]
            if re.search(pattern, ast.unparse(function)):
                yield f"{file.stem}.{function.name}"


def test_one_function_reads_the_settings_of_a_run_and_one_writes_them():
    readers = {"folder.settings", "folder.plain_settings", "folder.save_settings"}
    of_errors = {"reading.check_kind", "init_from.read_start"}
    assert set(functions_with("settings.yaml")) == readers | of_errors
    # The door and the user's own file; a preset of the package; a text that was written just before; the places, and no
    # values, of what a command line says.
    written = {"init_from._vae_of", "init_from.read_start", "job.read_job"}
    parsers = {"reading.read_yaml", "settings._read_own", "swaps._loaded"} | written
    assert set(functions_with(r"yaml\.\w*load")) == parsers


def test_a_run_folder_shows_no_text_unchecked():
    public = {name for name in vars(RunFolder) if not name.startswith("_")}
    readers = {"info", "settings", "fit", "weights"}
    assert public - readers == {
        "check_free",
        "begin",
        "save_settings",
        "save",
        "save_metrics",
        "save_failure",
        "failure",
        "check_data",
        "plain_settings",  # as data, which nothing is made of
    }


def test_the_groups_of_a_run_folder_are_those_of_the_settings():
    assert {*GROUPS, "device"} == set(Settings.__dataclass_fields__)


def test_a_trusted_class_is_loaded_from_a_module_of_any_depth(tmp_path):
    for number, name in enumerate(
        ["pyro_vae.parts.priors.StandardNormalPrior", "pyro_vae.StandardNormalPrior"]
    ):
        settings = load_settings(foreign(tmp_path / f"run{number}", "vae.prior", name))
        assert type(settings.vae.prior(latent_dim=2)) is StandardNormalPrior
