"""The root of the command line: it finds commands, and imports nothing that a help does not need."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyro_vae import __version__
from pyro_vae.commands import own_data, train_help, words
from pyro_vae.commands.completion import script
from pyro_vae.commands.request import read_settings
from pyro_vae.commands.root import COMMANDS
from pyro_vae.commands.train import command_parser
from pyro_vae.data import Identity, Rows, source_for
from pyro_vae.runs import initialized, presets, proposed_likelihood

WITHOUT_TORCH = """
import sys
from pyro_vae.commands.root import main
sys.argv = ["pyro-vae", *sys.argv[1:]]
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def root(*arguments):
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_names_every_command_without_importing_torch(arguments):
    done = root(*arguments)
    assert (done.returncode, done.stderr) == (0, "False\n")
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert set(COMMANDS) <= set(listed)


def test_the_version_is_that_of_the_package():
    done = root("--version")
    assert (done.stdout, done.stderr) == (f"pyro-vae {__version__}\n", "False\n")


def test_an_unknown_command_is_one_sentence_with_the_nearest():
    done = root("trian")
    assert done.returncode == 2
    sentence, _ = done.stderr.splitlines()
    assert sentence.startswith("error: 'command' must be one of train, ")
    assert sentence.endswith(", got trian; the nearest is 'train'.")


# The words and the help of training


def test_a_word_stands_for_the_setting_it_names():
    said = [
        "--lr",
        "0.1",
        "--likelihood.total_count=3",
        "--seed=4",
        "--run",
        "lr",
        "--vae.prior",
        "p",
    ]
    assert list(words.spelled_out(said)) == [
        *("--training.optimizer.lr", "0.1", "--vae.likelihood.total_count=3"),
        *("--training.seed=4", "--run", "lr", "--vae.prior", "p"),
    ]


@pytest.mark.parametrize("word", words.WORDS.values(), ids=lambda word: word.setting)
def test_every_word_stands_for_a_setting(word):
    assert f"--{word.setting}" in command_parser().values_by_option()


@pytest.mark.parametrize("joined", [False, True])
def test_a_file_of_data_becomes_the_source_with_its_columns(tmp_path, joined):
    path = str(tmp_path / "my.csv")
    Path(path).write_text("a,b,c\n1,2,3\n")
    said = [f"--data={path}"] if joined else ["--data", path]
    columns = ["--data.label", "a", "--data.ignored=b,c", "--data.seed", "3"]
    assert own_data.with_source(["--epochs", "3", *said, *columns], path) == [
        *("--epochs", "3", "--data.source=TableFile", f"--data.source.path={path}"),
        *("--data.source.label=a", '--data.source.ignored=["b", "c"]', "--data.seed", "3"),
    ]


@pytest.mark.parametrize("value", ["{seed: 3}", "mine.yaml", "seed: 3"])
def test_settings_of_the_data_stay_as_they_are(value):
    assert own_data.with_source(["--data", value], value) == ["--data", value]


def test_a_word_in_place_of_a_likelihood_is_left_to_the_data():
    said = ["--vae.likelihood", "auto", "--x", "auto", "--vae.likelihood=auto"]
    assert own_data.without_auto(said) == ["--x", "auto"]


COLUMNS = [
    (np.array([[0.5, 1.0], [2.0, 3.5]]), "NormalLikelihood", None),
    (np.array([[0, 9], [3, 2]]), "NegativeBinomialLikelihood", None),
    (np.array([[0, 1], [1, 1]]), "BernoulliLikelihood", None),
    (np.array([[-1, 4], [3, 2]]), "NormalLikelihood", [1, 1]),
    (np.array([[0.5, 0, 7, 1.5], [0.1, 1, 3, 2.5]]), "ProductLikelihood", [1, 1, 1, 1]),
]


@pytest.mark.parametrize(("levels", "name", "sizes"), COLUMNS)
def test_the_likelihood_suits_the_types_of_the_columns(levels, name, sizes):
    found = proposed_likelihood(Rows(levels, Identity()))
    columns = found.get("init_args", {}).get("columns")
    if columns is None:
        assert found["class_path"] == name
    else:
        assert [column["size"] for column in columns] == sizes


def test_each_category_is_an_event_of_its_own(tmp_path):
    (tmp_path / "t.csv").write_text("k,m,x\na,u,1.5\nb,v,2\nc,u,3\n")
    found = proposed_likelihood(source_for(tmp_path / "t.csv").rows())
    assert found["init_args"]["columns"] == [
        {"size": 3, "likelihood": "OneHotCategoricalLikelihood"},
        {"size": 2, "likelihood": "OneHotCategoricalLikelihood"},
        {"size": 1, "likelihood": "NormalLikelihood"},
    ]


@pytest.mark.parametrize(
    ("dtype", "name"), [("uint8", "DiscretizedLogistic"), ("float32", "Normal")]
)
def test_images_get_a_likelihood_of_their_levels(dtype, name):
    images = np.arange(32).reshape(2, 1, 4, 4).astype(dtype)
    assert proposed_likelihood(Rows(images, Identity()))["class_path"] == f"{name}Likelihood"


def test_the_first_page_of_help_is_one_screen_with_every_preset_and_word():
    page = train_help.page("", command_parser())
    assert len(page.splitlines()) < 50
    for name in (*presets(), *(f"--{word}" for word in words.WORDS)):
        assert f"  {name} " in page


@pytest.mark.parametrize("group", ["vae", "data", "training"])
def test_a_page_of_help_shows_one_group_and_each_list_of_classes_once(group):
    page = train_help.page(group, command_parser())
    options = [line.split()[0] for line in page.splitlines() if line.startswith("  --")]
    assert options
    assert all(option.startswith(f"--{group}.") for option in options)
    assert page.count("Known: ConditionalNormalPrior") == (group == "vae")
    assert "<lambda>" not in page
    assert "required" not in page


def test_an_unknown_page_of_help_is_one_sentence():
    with pytest.raises(ValueError, match="'help' must be one of .* got vea; the nearest is 'vae'"):
        train_help.page("vea", command_parser())


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_knows_commands_settings_and_classes(shell):
    text = script(shell)
    for name in (*COMMANDS, "--vae.prior", "--training.optimizer.lr", "VampPrior"):
        assert name in text
    assert len(text) < 100_000


@pytest.mark.parametrize("preset", ["own", "counts"])
def test_a_context_reaches_the_networks_without_further_settings(tmp_path, preset, capsys):
    lines = [f"{number % 5},{3 + number % 2},{'uvw'[number % 3]}" for number in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,batch", *lines]))
    said = ["--data", str(tmp_path / "t.csv"), "--data.context", "batch"]
    settings, text, _ = read_settings(preset, said)
    assert text.count("context_dim: 3") == 2
    assert initialized(settings, settings.data.load()).context_dim == 3
    assert ("The likelihood is NegativeBinomialLikelihood." in capsys.readouterr().out) == (
        preset == "own"
    )
    of_encoder = read_settings(preset, [*said, "--vae.encoder.context_dim=2"])
    assert "context_dim: 2" in of_encoder.text
