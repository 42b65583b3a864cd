"""Progress bars: where they are drawn over, where they are logged, and what importing them says."""

import subprocess
import sys

import pytest

from pyro_vae.support.progress import progress_bar

# A kernel of a notebook without ipywidgets, as far as tqdm looks.
KERNEL = """
import sys, types
shell = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace())
sys.modules["ipykernel.zmqshell"] = types.ModuleType("zmqshell")
sys.modules["IPython"] = shell
sys.modules["ipywidgets"] = None
import pyro_vae
from tqdm.std import tqdm
bar = pyro_vae.support.progress.progress_bar(10, "rows", True)
print(isinstance(bar, tqdm), bar.mininterval)
bar.close()
"""


@pytest.mark.slow  # a process of its own
def test_a_notebook_without_ipywidgets_has_a_bar_and_no_warning():
    done = subprocess.run(
        [sys.executable, "-c", KERNEL], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("True 0.5\n", 0), done.stderr
    assert "IProgress" not in done.stderr


@pytest.mark.parametrize(("is_terminal", "seconds"), [(True, 0.5), (False, 30.0)])
def test_a_file_keeps_few_lines_of_a_bar(monkeypatch, is_terminal, seconds):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    with progress_bar(10, "rows", is_shown=True) as bar:
        assert bar.mininterval == seconds


def test_a_bar_that_is_not_shown_writes_nothing(capsys):
    with progress_bar(10, "rows", is_shown=False) as bar:
        bar.update(10)
    assert capsys.readouterr() == ("", "")


def test_a_bar_counts_on_from_where_a_run_was_resumed(capsys):
    with progress_bar(10, "rows", is_shown=True, initial=4) as bar:
        bar.update(3)
        assert (bar.n, bar.total) == (7, 10)
        bar.refresh()
    assert "7.00/10.0" in capsys.readouterr().err
