"""Places to write: they are refused before the work, and nothing is left by the look at them."""

import pytest

from pyro_vae.runs import output_file, output_folder


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
