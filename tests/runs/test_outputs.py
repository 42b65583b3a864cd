"""Places to write: they are refused before the work, and nothing is left by the look at them."""

import os

import pytest

from pyro_vae.runs import output_file as output_file_of_kind
from pyro_vae.runs import output_folder

HEADER = "row,score"


def output_file(path, name):
    return output_file_of_kind(path, name, begins=HEADER)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("check", [output_folder, output_file])
@pytest.mark.parametrize("path", ["new", "new/deep/er", "folder/new", "é −"])
def test_a_place_that_can_be_written_is_returned_and_left_as_it_is(place, check, path):
    before = sorted(place.rglob("*"))
    assert str(check(path, "out")) == path
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("check", "path", "sentence"),
    [
        (output_folder, "", "'out' must be the name of a folder, got an empty string"),
        (output_folder, " ", "'out' must be the name of a folder, got an empty string"),
        (
            output_folder,
            "file",
            "'out' must be a folder that can be written, got file: .* is a file",
        ),
        (output_folder, "file/sub", "'out' must be a folder that can be written, got file/sub"),
        (output_folder, "a" * 300, "'out' must be a folder that can be written, .*too long"),
        (output_folder, "/proc/none", "'out' must be a folder that can be written, got /proc/none"),
        (output_file, "", "'out' must be the name of a file, got an empty string"),
        (output_file, "folder", "'out' must be a file, got the folder folder"),
        (output_file, "file/sub", "'out' must be a folder|'out' must be a file"),
        (output_file, "/proc/none", "'out' must be a"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(place, check, path, sentence):
    with pytest.raises(ValueError, match=sentence):
        check(path, "out")
    assert sorted(file.name for file in place.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("content", ["", "row,score\n0,1\n"])
def test_an_empty_file_or_one_of_the_same_kind_may_be_replaced(place, content):
    (place / "scores.csv").write_text(content)
    assert str(output_file("scores.csv", "out")) == "scores.csv"
    assert (place / "scores.csv").read_text() == content


@pytest.mark.parametrize("content", ["row\n", "x", "epoch,loss\n1,2\n", "\x93NUMPY\x01"])
@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_a_file_of_another_kind_is_no_output(place, content, link):
    (place / "input").write_text(content)
    if link is not None:
        link("input", "other")
    name = "input" if link is None else "other"
    with pytest.raises(ValueError, match=f"'out' must be a new file, .* got {name}, which holds"):
        output_file(name, "out")
    assert (place / "input").read_text() == content


def test_a_run_folder_is_no_folder_for_other_output(place):
    (place / "folder" / "run.json").touch()
    with pytest.raises(ValueError, match="'out' must be a folder without a run, got folder, whose"):
        output_folder("folder", "out")
    assert str(output_folder("folder/out", "out")) == "folder/out"
