"""What README and the pages under docs/ show runs, in the order in which it is shown, and their links lead somewhere."""

import re
import shlex
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

import pyro_vae as pv
from pyro_vae.commands.request import preset_of, read_settings
from pyro_vae.runs import RunFolder, initialized

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in (README, *DOCS)}
BLOCKS = {
    name: re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) for name, text in TEXTS.items()
}
COMMANDS = [
    line
    for text in TEXTS.values()
    for line in re.findall(r"^(?:python scripts/|pyro-vae )([^#\n]*)", text, flags=re.MULTILINE)
]
TRAININGS = sorted(
    {
        line.removeprefix("train").removeprefix(".py").strip()
        for line in COMMANDS
        if line.startswith("train")
    }
)
KINDS = ("Likelihood", "Prior", "Posterior")
PARTS = [name for name in pv.__all__ if name.endswith(KINDS) and name not in KINDS]
# What docs/posterior.md measured takes two minutes; here the same programs run on the fewest rows that `calibrate` takes.
SMALLER = {
    "num_rows=400": "num_rows=200",
    "num_samples=5000": "num_samples=100",
    "num_samples=250, num_warmup=200": "num_samples=25, num_warmup=1, num_steps=2",
    "[::10]": "[::1]",
}
EXTERNAL = ("http://", "https://")


# The programs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the runs that pages load, of one small VAE that is not trained: the programs need no better one."""
    options = "--vae.encoder.hidden [32] --vae.decoder.hidden [32]"
    settings, text, _ = read_settings("digits", options.split())
    rows = settings.data.read()
    splits = settings.data.split(*rows)
    vae = initialized(settings, splits)
    path = tmp_path_factory.mktemp("pages")
    for run in ("digits", "dynamic-20d"):
        folder = RunFolder(path / "runs" / run)
        folder.begin(text, splits.train.x_shape, settings.data.record(*rows))
        torch.save(vae.state_dict(), folder.path / "best.pt")
    return path


def run(name):
    """The names that a page leaves behind, whose programs run in one namespace."""
    names = {}
    with pyro.get_param_store().scope():  # an autoguide of the user's leaves its parameters there
        for block in BLOCKS[name]:
            exec(compile(block, name, "exec"), names)
    return names


def test_the_program_of_the_readme_prints_what_is_shown(capsys):
    names = run("README.md")
    shown = re.search(r"```text\n(.*?)```", TEXTS["README.md"], flags=re.DOTALL)[1]
    printed = capsys.readouterr().out
    assert shape_of(printed) == shape_of(shown)
    for measure, mean in means(
        shown
    ).items():  # the errors are of few digits, and rounding differs between machines
        assert means(printed)[measure] == pytest.approx(mean, rel=0.02)
    swapped = re.search(r"to (−[\d.]+) nats", TEXTS["README.md"])[1]
    reached = pv.evaluate(names["vae"], names["data"].test).log_marginal.mean
    assert reached == pytest.approx(float(swapped.replace("−", "-")), rel=0.02)


def shape_of(table):
    """The table without the digits of its estimates: its words, columns, decimals, and counts of draws and rows."""
    return re.sub(
        r"-?\d+\.(\d+)", lambda number: "#." + "#" * len(number[1]), re.sub(r" +", " ", table)
    )


def means(table):
    return {
        measure.strip(): float(mean)
        for measure, mean in re.findall(r"^(.*?\)) +(-?[\d.]+) ", table, re.MULTILINE)
    }


@pytest.mark.slow
def test_the_first_vae_of_docs_samples_images(capsys):
    assert run("first-vae.md")["images"].shape == (16, 1, 8, 8)
    assert "log p(x)" in capsys.readouterr().out


def test_the_program_without_a_vae_is_traced(capsys):
    assert run("speed.md")["svi"].how == "traced"
    assert capsys.readouterr().out == "traced\n"


def test_the_likelihood_of_your_own_starts_from_the_mean():
    names = run("parts.md")
    assert names["threes"].shape == (16, 1, 8, 8)
    likelihood = names["LogNormalLikelihood"](pv.MLP(2, [], 3), 3)
    likelihood.initialize_bias(mean := torch.tensor([0.5, 1, 20]))
    torch.testing.assert_close(likelihood(torch.zeros(5, 2)).mean, mean.expand(5, 3))


@pytest.mark.slow
def test_your_own_model_takes_the_guide(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = run("reuse.md")
    rows = len(names["x"])
    assert names["z"].shape == (rows, 2)
    assert names["chains"].latents["z"].shape == (10, 4, rows, 2)
    assert names["informed"].khat.shape == (rows,)


@pytest.mark.slow
def test_data_of_your_own_and_missing_data_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert not run("data.md")["imputed"].draws.isnan().any()
    assert "tensor" in capsys.readouterr().out


@pytest.mark.slow
def test_the_posterior_is_checked_with_each_way_to_draw(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (block,) = BLOCKS["posterior.md"]
    for measured, smaller in SMALLER.items():
        assert measured in block
        block = block.replace(measured, smaller)
    monkeypatch.setitem(BLOCKS, "posterior.md", [block])
    run("posterior.md")
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_model_and_guide_are_those_that_design_writes_out(capsys):
    run("design.md")
    assert capsys.readouterr().out == "torch.Size([5]) torch.Size([1, 8, 8])\nTrue\n"


def test_every_page_with_a_program_is_run_above():
    with_programs = {name for name, blocks in BLOCKS.items() if blocks}
    source = Path(__file__).read_text(encoding="utf-8")
    assert {name for name in with_programs if f'run("{name}")' in source} == with_programs


@pytest.mark.parametrize("name", TEXTS)
def test_programs_say_where_their_names_come_from(name):
    assert not any("import *" in block for block in BLOCKS[name])


def test_the_program_of_the_readme_has_at_most_fifteen_lines():
    assert len([line for line in BLOCKS["README.md"][0].splitlines() if line.strip()]) <= 15


# The commands


@pytest.mark.parametrize("arguments", TRAININGS)
def test_the_training_commands_are_accepted(arguments, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", np.random.default_rng(0).normal(size=(20, 3)))
    settings, text, _ = read_settings(*preset_of(shlex.split(arguments)))
    assert settings.training.epochs >= 1
    assert "class_path" in text


def test_every_script_that_is_named_is_there():
    named = {name for text in TEXTS.values() for name in re.findall(r"\bscripts/[\w/]+\.py", text)}
    assert named
    assert all((ROOT / name).is_file() for name in named)


def test_the_readme_has_two_commands_to_set_up():
    commands = re.findall(r"```bash\n(.*?)\n```", TEXTS["README.md"], flags=re.DOTALL)
    assert commands == [
        "pip install -e . && pyro-vae train",
        "pip install -e '.[test]' && python -m pytest",
    ]


# The pages


@pytest.mark.parametrize(
    "path", [README, ROOT / "CONTRIBUTING.md", *DOCS], ids=lambda path: path.name
)
def test_every_link_and_image_is_there(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(EXTERNAL):
            continue
        file, _, heading = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.is_file(), target
        assert not heading or heading in anchors(linked.read_text(encoding="utf-8")), target


def anchors(text):
    """The names of a page's headings in links: lower case, letters, digits and hyphens."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_a_page_says_what_it_is_for_and_where_to_go_next(path):
    text = TEXTS[path.name]
    assert f"docs/{path.name}" in TEXTS["README.md"]
    assert re.match(r"# .+\n\nThis page [^.]*\.\n\n", text)
    assert re.search(r"\n\nNext: [^\n]*\]\([^\n]*\n$", text)


def test_every_picture_is_shown():
    shown = {
        Path(target).name
        for text in TEXTS.values()
        for target in re.findall(r"!\[.*?\]\((.*?)\)", text)
    }
    assert shown == {path.name for path in (ROOT / "docs").glob("*.png")}


def test_design_shows_the_rooms_as_contributing_does():
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = re.search(r"## The house\n\n```\n(.*?)```", contributing, flags=re.DOTALL)[1]
    assert picture in TEXTS["design.md"]


# The parts


@pytest.mark.parametrize("name", PARTS)
def test_every_public_part_is_in_both_tables_with_its_years(name):
    (short,) = re.findall(
        rf"`{name}`(?: \(([\d, ]+)\))?", TEXTS["README.md"].partition("## The parts\n")[2]
    )
    (row,) = re.findall(rf"^\|([^|]*`{name}`.*)\|$", TEXTS["parts.md"], flags=re.MULTILINE)
    years = re.findall(r"(\d{4}),", row)  # some rows are of several parts, whose papers differ
    assert set(re.findall(r"\d{4}", short)) <= set(years)
    assert bool(short) == bool(years)
