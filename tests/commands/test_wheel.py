"""The wheel, in a folder without the checkout: it has its commands and presets, and trains."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words, cwd, **env):
    done = subprocess.run(
        words, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_alone_trains_digits_and_draws_the_manifold(tmp_path):
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    source = tmp_path / "source"  # a build leaves files in the folder of its source
    shutil.copytree(ROOT / "pyro_vae", source / "pyro_vae")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(source), cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "installed"
    run(*pip, "install", "--no-deps", "--target", str(place), str(wheel), cwd=tmp_path)
    home = {"PYTHONPATH": str(place)}
    where = run(
        sys.executable, "-c", "import pyro_vae; print(pyro_vae.__file__)", cwd=tmp_path, **home
    )
    assert Path(where.strip()).is_relative_to(place)
    command = str(place / "bin" / "pyro-vae")
    table = run(command, "train", "digits", "--epochs", "1", cwd=tmp_path, **home)
    assert "-ELBO (nats)" in table
    assert (tmp_path / "runs" / "digits" / "manifold.png").is_file()
    assert "-ELBO (nats)" in run(command, "evaluate", "runs/digits", cwd=tmp_path, **home)
    run(command, "encode", "runs/digits", cwd=tmp_path, **home)
    assert len((tmp_path / "codes.csv").read_text().splitlines()) == 298
