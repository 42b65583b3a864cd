"""Settings of older versions, and import paths that no layout breaks."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

import pyro_vae
from pyro_vae.runs import RunFolder, load, load_settings
from pyro_vae.runs.formats import with_public_paths

OLD_RUNS = Path(__file__).parent / "data"


@pytest.mark.parametrize("module", ["priors", "parts.priors", "a.b.c", "parts"])
def test_a_public_class_is_found_under_any_path(module):
    path = f"pyro_vae.{module}.LaplacePrior"
    assert with_public_paths(f"prior: {path}\n") == "prior: pyro_vae.LaplacePrior\n"


@pytest.mark.parametrize(
    "text",
    [
        "pyro_vae.runs.folder.RunFolder",
        "pyro_vae.data.sources.os.system",
        "pyro_vae.data.load",
        "my_pyro_vae.parts.LaplacePrior",
        "/data/pyro_vae.data.MNIST/x.npy",
        "pyro_vae.data.MNIST.npy",
        "pyro_vae.LaplacePrior",
        "torch.nn.Linear",
    ],
)
def test_other_text_stays_as_it_is(text):
    assert with_public_paths(text) == text


@pytest.mark.parametrize("name", ["format1", "format2"])
def test_a_run_of_an_older_version_loads(name, tmp_path):
    run = shutil.copytree(OLD_RUNS / name, tmp_path / "run")
    vae = load(run)
    stored = torch.load(run / "best.pt", weights_only=True)
    for key, value in vae.state_dict().items():
        if key in stored:
            assert torch.equal(value, stored[key])
    assert set(stored) <= set(vae.state_dict())
    assert load_settings(run).training.epochs >= 1


def test_the_old_run_names_modules_that_are_gone():
    text = (OLD_RUNS / "format2" / "settings.yaml").read_text()
    assert "pyro_vae.priors.LaplacePrior" in text
    assert "pyro_vae.objectives.penalties.FreeBitsELBO" in text


def test_settings_are_written_with_public_paths(tmp_path):
    text = "vae: {prior: pyro_vae.parts.priors.LaplacePrior}\ndata: {}\ntraining: {}\n"
    tmp_path.joinpath("run").mkdir()
    RunFolder(tmp_path / "run").save_settings(text, (2,))
    written = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert written["vae"]["prior"] == "pyro_vae.LaplacePrior"


@pytest.mark.parametrize("way", ["typed", "a tree", "a file", "the file of a group"])
def test_a_long_path_is_taken_for_the_public_one_wherever_it_is_said(way, tmp_path):
    from pyro_vae.runs import build_vae, instantiate, read_preset, settings_parser

    path = "pyro_vae.gone.LaplacePrior"
    (tmp_path / "mine.yaml").write_text(f"vae: {{prior: {path}}}\n")
    (tmp_path / "vae.yaml").write_text(f"prior: {path}\n")
    arguments = {
        "typed": ["--vae.prior", path],
        "a tree": ["--vae.prior", f"{{class_path: {path}, init_args: {{scale: 0.5}}}}"],
        "a file": ["--config", str(tmp_path / "mine.yaml")],
        "the file of a group": ["--vae", str(tmp_path / "vae.yaml")],
    }
    defaults, _ = read_preset("digits")
    parser = settings_parser(defaults)
    settings = instantiate(parser, parser.parse_args(arguments[way]))
    assert isinstance(build_vae(settings.vae, (1, 8, 8)).prior, pyro_vae.LaplacePrior)
