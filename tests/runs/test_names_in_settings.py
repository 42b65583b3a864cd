"""Names of columns in the settings of a foreign run: any string, which nothing parses or imports."""

import json

import pytest
import yaml
from sweeps import thinned

from pyro_vae.runs import load_settings
from pyro_vae.runs.settings import read_preset
from pyro_vae.runs.trust import check_trusted

PACKAGES = ("pyro_vae", "pyro", "torch")
STRINGS = [
    "two words",
    "null",
    "~",
    "1e3",
    "true",
    "os.system",
    "{class_path: os.system, init_args: {command: ls}}",
    "[a, b]",
    "!!python/object/apply:os.system [ls]",
    "&a [*a, *a]",
    "/etc/passwd",
    "größe [cm] / 'x'",
    "[" * 2000,
]


def run_with(folder, class_name, **arguments):
    tree, _ = read_preset("digits")
    source = {"class_path": f"pyro_vae.{class_name}", "init_args": {"path": "x.h5", **arguments}}
    tree["data"]["source"] = source
    folder.mkdir()
    (folder / "settings.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    info = {"x_shape": [4], "format": 3, "versions": {}}
    (folder / "run.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize("string", thinned(STRINGS, 3), ids=range(len(STRINGS)))
def test_the_name_of_a_column_or_an_array_is_kept_letter_by_letter(tmp_path, string):
    given = {"label": string, "context": [f"{string} 2", "None"], "ignored": [f"{string} 3"]}
    source = load_settings(run_with(tmp_path / "run", "TableFile", **given)).data.source
    assert (source.label, source.context, source.ignored) == tuple(given.values())
    for kind, name in {"HDF5File": "dataset", "AnnDataFile": "layer"}.items():
        source = load_settings(run_with(tmp_path / kind, kind, **{name: string})).data.source
        assert getattr(source, name) == string


@pytest.mark.parametrize(
    "place",
    ["data.label", "data.transform.label", "data.source.inner.label", "data.source.name", "vae.context", "label", "data.source.columns"],
)  # fmt: skip
def test_names_of_columns_stand_only_where_the_data_are_read(place):
    tree = branch = {}
    *groups, name = place.split(".")
    for group in groups:
        branch[group] = branch = {}
    branch[name] = "two words"
    with pytest.raises(
        ValueError, match="settings may hold names and numbers, got the text 'two words'"
    ):
        check_trusted(tree, PACKAGES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label", {"class_path": "os.system"}),
        ("label", ["os.system"]),
        ("context", "os.system"),
        ("context", [{"class_path": "os.system"}]),
        ("context", [["os.system"]]),
        ("ignored", ["a", {"b": "os.system"}]),
    ],
)
def test_what_is_no_name_of_a_column_is_checked_as_ever(tmp_path, name, value):
    with pytest.raises(ValueError, match="got os.system: allow os by name"):
        load_settings(run_with(tmp_path / "run", "TableFile", **{name: value}))
