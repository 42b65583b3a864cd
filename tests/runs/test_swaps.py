"""Classes that are swapped on the command line or in a file: each starts from its own defaults, and nothing stays."""

import functools
import importlib
import sys

import pytest
import torch
import yaml
from torch import nn

import pyro_vae as pv
from pyro_vae.commands.request import read_settings
from pyro_vae.runs import build_vae, read_preset, settings_parser


@pytest.fixture
def read():
    """The tree of settings that a command line stands for, and the sentences that it says."""

    def read(*arguments, preset="digits"):
        tree, overlay = read_preset(preset)
        parser = settings_parser(tree)
        settings = parser.parse_args([*overlay, *arguments]).as_dict()
        return settings | {"config": None}, [str(swap) for swap in parser.swaps]

    return read


@functools.cache
def own_defaults(name, place="training.optimizer"):
    """What a class is asked for where nothing has been said of another before."""
    tree, _ = read_preset("digits")
    *groups, setting = place.split(".")
    for group in groups:
        branch = tree[group]
    branch.pop(setting, None)
    return settings_parser(tree).parse_args([f"--{place}", name]).as_dict()[groups[0]][setting]


ADAMW = {
    "an option": ["--training.optimizer", "AdamW"],
    "an option with =": ["--training.optimizer=AdamW"],
    "its import path": ["--training.optimizer", "torch.optim.AdamW"],
    "its other import path": ["--training.optimizer", "torch.optim.adamw.AdamW"],
    "class_path": ["--training.optimizer.class_path", "AdamW"],
    "a tree": ["--training.optimizer", "{class_path: AdamW}"],
    "a group": ["--training", "{optimizer: AdamW}"],
    "settings": ["--config", "training: {optimizer: AdamW}"],
    "settings with a tree": ["--config", "training: {optimizer: {class_path: AdamW}}"],
    "another class before": [
        "--training.optimizer=SGD",
        "--training.optimizer.momentum=0.9",
        "--training.optimizer=AdamW",
    ],
    "another class in settings": [
        *(
            "--config",
            "training: {optimizer: {class_path: SGD, init_args: {lr: 0.3, momentum: 0.9}}}",
        ),
        *("--training.optimizer", "AdamW"),
    ],
}


@pytest.mark.parametrize("way", ADAMW)
def test_by_whatever_way_a_class_is_swapped_it_starts_from_its_own_defaults(read, way):
    tree, (first, *_) = read(*ADAMW[way])
    assert tree["training"]["optimizer"] == own_defaults("AdamW")
    assert tree["training"]["optimizer"]["init_args"]["weight_decay"] == 0.01  # of torch
    assert first.endswith(" now: lr = 0.001 and fused = True of Adam are dropped.")


@pytest.mark.parametrize("written", ["AdamW", "{class_path: torch.optim.AdamW}"])
@pytest.mark.parametrize("as_preset", [True, False])
def test_a_file_swaps_a_class_like_an_option(tmp_path, read, written, as_preset):
    file = tmp_path / "mine.yaml"
    file.write_text(f"training:\n  optimizer: {written}\n")
    tree, _ = read(preset=str(file)) if as_preset else read("--config", str(file))
    assert tree["training"]["optimizer"] == own_defaults("AdamW")


def test_an_option_swaps_the_class_of_a_file(tmp_path, read):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "training: {optimizer: {class_path: SGD, init_args: {lr: 0.3, momentum: 0.9}}}\n"
    )
    tree, sentences = read("--training.optimizer", "AdamW", preset=str(file))
    assert tree["training"]["optimizer"] == own_defaults("AdamW")
    assert (
        sentences[-1]
        == "'training.optimizer' is AdamW now: lr = 0.3 and momentum = 0.9 of SGD are dropped."
    )


# Each names a class of another kind with arguments that the old one has too.
SWAPPED = {
    "vae.encoder": ("ConvEncoder", "digits"),
    "vae.decoder": ("ConvDecoder", "mnist-gated"),
    "vae.likelihood": ("DiscretizedLogisticLikelihood", "digits"),
    "training.objective": ("Trace_ELBO", "mnist-iwae"),
    "training.optimizer": ("RMSprop", "mnist-20d"),
}


@pytest.mark.parametrize("place", SWAPPED)
def test_every_kind_of_class_starts_from_its_own_defaults(read, place):
    name, preset = SWAPPED[place]
    group, setting = place.split(".")
    tree, sentences = read(f"--{place}", name, preset=preset)
    assert tree[group][setting] == own_defaults(name, place)
    assert len(sentences) == 1
    assert sentences[0].startswith(f"'{place}' is {name} now: ")


def test_a_convolutional_encoder_by_its_name_is_the_one_that_its_defaults_make():
    settings, _, _ = read_settings("digits", ["--vae.encoder", "ConvEncoder"])
    torch.manual_seed(0)
    received = build_vae(settings.vae, (1, 8, 8)).posterior.network.network  # behind what it sees
    assert repr(received) == repr(pv.ConvEncoder((1, 8, 8), (2, 2)))


@pytest.mark.parametrize("preset", ["mnist-conv", "mnist-gated"])
@pytest.mark.parametrize(
    "name", ["pyro_vae.MLP", "GatedMLP"]
)  # zuko, once imported, has an MLP too
def test_a_perceptron_by_its_name_has_hidden_layers(preset, name):
    settings, _, _ = read_settings(
        preset, ["--vae.decoder", name, "--vae.encoder", "pyro_vae.parts.networks.MLP"]
    )
    build_vae(settings.vae, (1, 8, 8))
    network = settings.vae.decoder(in_shape=(2,), out_shape=(3,))
    widths = [layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear)]
    # Naming the class that a preset names keeps its widths.
    hidden = [300, 300] if preset == "mnist-gated" and name == "GatedMLP" else [256, 256]
    assert widths == [*(width * (2 if name == "GatedMLP" else 1) for width in hidden), 3]


# What is said for the new class

# Too long for the name of a file.
ADAMW_LONG = f"--config=training: {{optimizer: AdamW}}  # {'x' * 9999}"
SAID = {
    "after": (["--training.optimizer=AdamW", "--training.optimizer.lr=5e-4"], {"lr": 5e-4}),
    "before": (["--training.optimizer.lr=5e-4", "--training.optimizer=AdamW"], {"lr": 5e-4}),
    "with it": (["--training.optimizer={class_path: AdamW, init_args: {lr: 5e-4}}"], {"lr": 5e-4}),
    "in settings before": (
        ["--config=training: {optimizer: {init_args: {lr: 5e-4}}}", *ADAMW["an option"]],
        {"lr": 5e-4},
    ),
    "before settings": (["--training.optimizer.lr=5e-4", *ADAMW["settings"]], {"lr": 5e-4}),
    "before long settings": (["--training.optimizer.lr=5e-4", ADAMW_LONG], {"lr": 5e-4}),
    "after settings": ([*ADAMW["settings"], "--training.optimizer.lr=5e-4"], {"lr": 5e-4}),
    "twice, the last wins": (
        ["--training.optimizer.lr=5", *ADAMW["an option"], "--training.optimizer.lr=5e-4"],
        {"lr": 5e-4},
    ),
    "settings last win": (
        [
            "--training.optimizer.lr=5",
            "--config=training: {optimizer: {class_path: AdamW, init_args: {lr: 5e-4}}}",
        ],
        {"lr": 5e-4},
    ),
    "of no other class, before": (
        ["--training.optimizer.momentum=0.9", "--training.optimizer=SGD"],
        {"momentum": 0.9},
    ),
    "in between": (
        [
            "--training.optimizer=AdamW",
            "--vae.latent_dim=3",
            "--training.optimizer.eps=1e-3",
            "--training.optimizer=AdamW",
        ],
        {"eps": 1e-3},
    ),
}


@pytest.mark.parametrize("order", SAID)
def test_what_is_said_for_the_new_class_holds_wherever_it_is_said(read, order):
    arguments, expected = SAID[order]
    optimizer = read(*arguments)[0]["training"]["optimizer"]
    own = own_defaults(optimizer["class_path"])
    assert optimizer["init_args"] == own["init_args"] | expected


@pytest.mark.parametrize(
    "name", ["Adam", "torch.optim.Adam", "torch.optim.adam.Adam", "{class_path: Adam}"]
)
def test_naming_the_same_class_again_keeps_its_arguments(read, name):
    tree, sentences = read("--training.optimizer", name, "--training.optimizer.eps", "1e-3")
    assert tree["training"]["optimizer"]["init_args"] == own_defaults("Adam")["init_args"] | {
        "fused": True,
        "eps": 1e-3,
    }
    assert sentences == []


@pytest.mark.parametrize(
    "first", ["LinearWarmup", "pyro_vae.LinearWarmup", "pyro_vae.objectives.schedules.LinearWarmup"]
)
def test_a_class_has_many_import_paths_and_is_the_same(tmp_path, read, first):
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"training: {{kl_schedule: {{class_path: {first}, init_args: {{epochs: 5}}}}}}\n"
    )
    for second in ("LinearWarmup", "pyro_vae.objectives.LinearWarmup"):
        tree, sentences = read("--training.kl_schedule", second, preset=str(file))
        assert tree["training"]["kl_schedule"]["init_args"] == {"epochs": 5, "start": 0.01}
        assert sentences == []
    # A preset's own path is not the shortest.
    parser = settings_parser(
        {**read_preset("digits")[0], "training": yaml.safe_load(file.read_text())["training"]}
    )
    assert (
        parser.parse_args(
            ["--training.kl_schedule", "LinearWarmup"]
        ).training.kl_schedule.init_args.epochs
        == 5
    )


def test_an_argument_that_the_new_class_lacks_is_refused(read):
    with pytest.raises(ValueError, match=r"'training.optimizer.betas' is no setting"):
        read("--training.optimizer.betas=[0.5,0.9]", "--training.optimizer=SGD")


def test_a_setting_that_is_put_off_keeps_the_order_of_the_others(read):
    tree, _ = read(
        "--vae.latent_dim=3",
        "--config=vae: {latent_dim: 7}",
        "--training.epochs=9",
        "--training={epochs: 4}",
    )
    assert (tree["vae"]["latent_dim"], tree["training"]["epochs"]) == (7, 4)


# Classes inside classes

NETWORK_SCALE = "{class_path: NetworkScale, init_args: {min_scale: 0.25}}"
LEARNED = {
    "class_path": "pyro_vae.LearnedScale",
    "init_args": {"shape": [], "init": None, "min_scale": None},
}
NORMAL = (
    "--vae.likelihood",
    f"{{class_path: NormalLikelihood, init_args: {{scale: {NETWORK_SCALE}}}}}",
)
NESTED = {
    "an option": ["--vae.likelihood.scale", "LearnedScale"],
    "class_path": ["--vae.likelihood.scale.class_path", "LearnedScale"],
    "init_args": ["--vae.likelihood.init_args.scale", "LearnedScale"],
    "a tree": [
        "--vae.likelihood",
        "{class_path: NormalLikelihood, init_args: {scale: LearnedScale}}",
    ],
    "a group": [
        "--vae",
        "{likelihood: {class_path: NormalLikelihood, init_args: {scale: LearnedScale}}}",
    ],
    "settings": ["--config", "vae: {likelihood: {init_args: {scale: {class_path: LearnedScale}}}}"],
}


@pytest.mark.parametrize("way", NESTED)
def test_a_scale_inside_a_likelihood_starts_from_its_own_defaults(read, way):
    tree, sentences = read(*NORMAL, *NESTED[way])
    assert tree["vae"]["likelihood"]["init_args"]["scale"] == LEARNED
    assert sentences[1:] == [
        "'vae.likelihood.scale' is LearnedScale now: min_scale = 0.25 of NetworkScale is dropped."
    ]


def test_a_likelihood_takes_no_scale_from_the_old_one(read):
    tree, sentences = read(*NORMAL, "--vae.likelihood", "LaplaceLikelihood")
    assert tree["vae"]["likelihood"] == own_defaults("LaplaceLikelihood", "vae.likelihood")
    assert sentences[1].endswith(
        "scale = NetworkScale(min_scale=0.25) of NormalLikelihood is dropped."
    )


def test_what_is_said_inside_comes_before_the_classes_around_it(read):
    tree, _ = read(
        *("--vae.likelihood.scale.init", "0.5", "--vae.likelihood.scale", "LearnedScale"),
        *("--vae.likelihood", "NormalLikelihood"),
    )
    assert tree["vae"]["likelihood"]["init_args"]["scale"]["init_args"] == LEARNED["init_args"] | {
        "init": 0.5
    }


def test_a_flow_inside_a_prior_starts_from_its_own_defaults(read):
    flow = ("--vae.prior.flow.num_transforms", "7", "--vae.prior.flow.hidden", "[9]")
    tree, sentences = read(
        "--vae.prior",
        "FlowPrior",
        "--vae.prior.flow",
        "AffineFlow",
        *flow,
        "--vae.prior.flow=SplineFlow",
    )
    spline = read("--vae.prior", "FlowPrior", "--vae.prior.flow", "SplineFlow")[0]
    assert tree["vae"]["prior"] == spline["vae"]["prior"]
    assert sentences == [
        "'vae.prior.flow' is SplineFlow now: num_transforms = 7 and hidden = [9] of AffineFlow are dropped."
    ]


COLUMNS = f"[{{size: 2, likelihood: {NORMAL[1]}}}, {{size: 1, likelihood: PoissonLikelihood}}]"
SWAPPED_COLUMNS = {
    "StudentTLikelihood": "vae.likelihood.columns.likelihood",
    "{class_path: NormalLikelihood, init_args: {scale: LearnedScale}}": "vae.likelihood.columns.likelihood.scale",
}


@pytest.mark.parametrize("first", SWAPPED_COLUMNS)
def test_the_columns_of_a_table_start_from_their_own_defaults(read, first):
    product = ("--vae.likelihood", "ProductLikelihood", "--vae.likelihood.columns")
    columns = f"[{{size: 2, likelihood: {first}}}, {{size: 1, likelihood: PoissonLikelihood}}]"
    tree, sentences = read(*product, COLUMNS, product[-1], columns)
    assert tree["vae"]["likelihood"] == read(*product, columns)[0]["vae"]["likelihood"]
    assert sentences[1].startswith(f"'{SWAPPED_COLUMNS[first]}' is ")


LISTS = """
from torch import nn
import pyro_vae as pv
from pyro_vae.parts import Scale

class Layers(pv.NormalLikelihood):
    def __init__(self, network, x_shape, scales: list[Scale], more: dict[str, Scale] | None = None):
        super().__init__(network, x_shape)
"""


@pytest.mark.parametrize(
    "form", ["scales: [{}, {}]", "scales: [LearnedScale], more: {{a: {}, b: {}}}"]
)
def test_classes_in_lists_and_dicts_start_from_their_own_defaults(
    tmp_path, monkeypatch, read, form
):
    (tmp_path / "my_lists.py").write_text(LISTS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()

    def option(*scales):
        return (
            "--vae.likelihood",
            f"{{class_path: my_lists.Layers, init_args: {{{form.format(*scales)}}}}}",
        )

    tree, sentences = read(
        *option(NETWORK_SCALE, NETWORK_SCALE), *option("LearnedScale", NETWORK_SCALE)
    )
    assert tree == read(*option("LearnedScale", NETWORK_SCALE))[0]
    assert "is LearnedScale now: min_scale = 0.25 of NetworkScale is dropped." in sentences[1]
    monkeypatch.delitem(sys.modules, "my_lists")


# None, and what is no class


def test_a_class_in_the_place_of_none_or_of_a_number_has_nothing_to_drop(read):
    tree, sentences = read("--training.scheduler", "StepLR", "--training.scheduler.step_size", "2")
    assert tree["training"]["scheduler"]["init_args"]["gamma"] == 0.1
    assert sentences == []
    tree, sentences = read(
        "--vae.likelihood=NormalLikelihood", "--vae.likelihood.scale=0.5", *NESTED["an option"]
    )
    assert tree["vae"]["likelihood"]["init_args"]["scale"] == LEARNED
    assert len(sentences) == 1


def test_a_scheduler_that_is_taken_away_leaves_nothing_to_the_next(read):
    assert (
        read("--training.scheduler", "null", preset="mnist-gated")[0]["training"]["scheduler"]
        is None
    )
    tree, _ = read(
        "--training.scheduler=StepLR", "--training.scheduler.step_size=2", preset="mnist-gated"
    )
    assert tree["training"]["scheduler"]["init_args"] == {
        "step_size": 2,
        "gamma": 0.1,
        "last_epoch": -1,
    }


# What is written


@pytest.mark.parametrize("flags", ["--print_config", "--print_config=skip_default"])
def test_the_printed_settings_of_a_swapped_class_can_be_fed_back(tmp_path, capsys, flags):
    arguments = [
        "--vae.encoder",
        "ConvEncoder",
        "--training.optimizer.lr",
        "0.5",
        "--training.optimizer",
        "AdamW",
    ]
    arguments += [*NORMAL, *NESTED["an option"]]
    with pytest.raises(SystemExit):
        read_settings("digits", [*arguments, flags])
    printed = capsys.readouterr()
    file = tmp_path / "printed.yaml"
    file.write_text(printed.out)
    _, expected, options = read_settings("digits", arguments)
    assert yaml.safe_load(read_settings(str(file), [])[1]) == yaml.safe_load(expected)
    assert printed.err.splitlines() == [str(swap) for swap in options.swaps]


def test_the_settings_of_a_run_with_a_swapped_class_are_those_that_it_had():
    settings, text, _ = read_settings(
        "digits", [*ADAMW["an option"], *NORMAL, *NESTED["an option"]]
    )
    stored = yaml.safe_load(text)
    assert stored["training"]["optimizer"]["init_args"]["weight_decay"] == 0.01
    assert stored["vae"]["likelihood"]["init_args"]["scale"] == LEARNED
    again = read_settings("digits", [], stored)[0]
    assert repr(build_vae(again.vae, (1, 8, 8))) == repr(build_vae(settings.vae, (1, 8, 8)))
    parameters = [nn.Parameter(torch.zeros(1))]
    assert repr(again.training.optimizer(parameters)) == repr(
        settings.training.optimizer(parameters)
    )


def test_a_parser_that_reads_twice_says_each_time_what_it_dropped():
    parser = settings_parser(read_preset("digits")[0])
    for name, number in (("AdamW", 1), ("Adam", 0), ("SGD", 1)):
        parser.parse_args(["--training.optimizer", name])
        assert len(parser.swaps) == number
