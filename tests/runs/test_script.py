"""The door of the scripts: mistakes as sentences, faults with a traceback, and output on any console."""

import io
import logging
import sys
from pathlib import Path

import pytest
import torch

from pyro_vae.runs import run
from pyro_vae.support.checks import whole


def ended(monkeypatch, main, encoding="utf-8"):
    """The exit code of a script, and what it wrote in this encoding."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with pytest.raises(SystemExit) as caught:
        run(main)
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    return caught.value.code, out, err


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("--run=~/a b", "--run=HOME/a b"),
        ("~/x.npy", "HOME/x.npy"),
        ("--run=a~/b", "--run=a~/b"),
        ("--training.scheduler=~", "--training.scheduler=~"),
        ("~", "~"),
        ("a=~/b", "a=~/b"),
    ],
)
def test_a_path_may_begin_with_the_sign_of_the_home_folder(monkeypatch, given, passed):
    monkeypatch.setattr(sys, "argv", ["script", given])
    ended(monkeypatch, lambda: 0)
    assert sys.argv[1] == passed.replace("HOME", str(Path.home()))


MISTAKES = [
    (ValueError("'x' must be\n 3, got 4."), "'x' must be 3, got 4."),
    (FileNotFoundError(2, "No such file or directory", "a.npy"), "a.npy cannot be read or written"),
    (MemoryError(), "The memory is too small"),
    (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"),
        "The memory is too small",
    ),
    (torch.OutOfMemoryError("CUDA out of memory"), "The memory is too small"),
]


@pytest.mark.parametrize(("error", "sentence"), MISTAKES, ids=lambda value: type(value).__name__)
def test_a_mistake_is_one_sentence_and_exit_code_2(monkeypatch, error, sentence):
    code, out, err = ended(monkeypatch, raising(error))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {sentence}")


def test_a_wrong_type_that_the_package_refuses_is_a_sentence(monkeypatch):
    def main():
        whole("3", "epochs")

    code, _, err = ended(monkeypatch, main)
    assert (code, err.count("\n")) == (2, 1)
    assert "'epochs' must be a whole number" in err


@pytest.mark.parametrize(
    "error", [TypeError("bug"), KeyError("bug"), RuntimeError("bug")], ids=repr
)
def test_a_fault_keeps_its_traceback(error):
    with pytest.raises(type(error), match="bug"):
        run(raising(error))


def test_ctrl_c_is_a_short_line_and_exit_code_130(monkeypatch):
    assert ended(monkeypatch, raising(KeyboardInterrupt())) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_output_fits_every_console(monkeypatch, encoding):
    def main():
        print("−1 ± 2 … é 漢 \udcc3")
        raise ValueError("p(x ‖ z) −1")

    code, out, err = ended(monkeypatch, main, encoding)
    assert code == 2
    assert out.startswith("-1 ")
    assert "\\u6f22 \\udcc3" in out
    assert err == "error: p(x || z) -1\n"


def test_the_search_of_torch_for_cuda_is_not_told(monkeypatch):
    logger = logging.getLogger("torch.utils.cpp_extension")
    logger.setLevel(logging.NOTSET)
    told = []
    monkeypatch.setattr(logger, "handle", told.append)
    logger.warning("No CUDA runtime is found")
    assert len(told) == 1
    ended(monkeypatch, lambda: 0)
    logger.warning("No CUDA runtime is found")
    assert len(told) == 1
