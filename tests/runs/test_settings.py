"""Settings: presets, names on the command line, YAML files, classes of the user's own, and what a run folder may name."""

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyro.infer
import pytest
import torch
import yaml
from sweeps import thinned
from torch import nn

import pyro_vae as pv
from pyro_vae.commands.request import read_settings
from pyro_vae.runs import build_vae, load_settings, read_preset, settings_parser
from pyro_vae.runs.settings import initialized
from pyro_vae.runs.trust import check_trusted

PRESETS = Path(pv.__file__).parent / "runs" / "presets"
X_SHAPE = (1, 8, 8)


@pytest.fixture
def read():
    """The settings that a command line stands for."""
    return lambda *arguments, preset="digits": read_settings(preset, list(arguments))[0]


def make_optimizer(settings):
    return settings.training.optimizer([nn.Parameter(torch.zeros(1))])


def linear_sizes(part):
    layers = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
    return [layers[0].in_features, *(layer.out_features for layer in layers)]


# The reference systems


class Reference(NamedTuple):
    """What a preset must say."""

    x_shape: tuple
    encoder: list
    decoder: list
    likelihood: type
    source: type
    transform: str
    batch_size: int
    num_batches: int  # of 60,000 rows
    optimizer: type
    learning_rate: float
    epochs: int
    seed: int


BERNOULLI, BINOMIAL = pv.BernoulliLikelihood, pv.BinomialLikelihood
ADAM, SGD, IMAGE = torch.optim.Adam, torch.optim.SGD, (1, 28, 28)
BINARY, GREY = "Threshold(threshold=0.5)", "UnitInterval()"
# fmt: off
REFERENCES = {
    "digits": Reference(X_SHAPE, [64, 256, 256, 4], [2, 256, 256, 64], BINOMIAL, pv.Digits, "Identity()",
                        100, 600, ADAM, 1e-3, 100, 0),
    "onehot": Reference((4,), [4, 200, 4], [2, 200, 4], BERNOULLI, pv.OneHot, "Identity()", 5, 501, ADAM, 1e-3, 29, 0),
    "mnist-20d": Reference(IMAGE, [784, 400, 40], [20, 400, 784], BERNOULLI, pv.MNIST, BINARY,
                           128, 469, ADAM, 1e-3, 10, 199),
    "mnist-2d": Reference(IMAGE, [784, 400, 150, 4], [2, 150, 400, 784], BERNOULLI, pv.MNIST, BINARY,
                          128, 469, ADAM, 1e-3, 10, 199),
    "mnist-dynamic-2d": Reference(IMAGE, [784, 256, 128, 4], [2, 128, 256, 784], BERNOULLI, pv.MNIST, "DynamicDraw()",
                                  100, 600, SGD, 5e-3, 20, 0),
    "mnist-10d": Reference(IMAGE, [784, 200, 20], [10, 200, 784], BERNOULLI, pv.MNIST, GREY,
                           128, 469, ADAM, 1e-2, 5, 0),
    "mnist-interpolate": Reference(IMAGE, [784, 400, 40], [20, 400, 784], BERNOULLI, pv.MNIST, GREY,
                                   128, 469, ADAM, 1e-3, 20, 0),
}
# fmt: on


@pytest.fixture(params=REFERENCES, scope="module")
def preset(request):
    return request.param


@pytest.fixture(scope="module")
def preset_settings(preset):
    return read_settings(preset, [])[0]


# Those that parts are compared with: networks, latent dimensions.
COMPARED = {
    "mnist-iwae": (pv.MLP, 50),
    "mnist-gated": (pv.GatedMLP, 40),
    "mnist-conv": (pv.ConvEncoder, 32),
}


def test_every_preset_is_known_here():
    known = [*REFERENCES, *COMPARED, "counts", "own", "rgb-32"]
    assert sorted(known) == sorted(file.stem for file in PRESETS.glob("*.yaml"))


def test_the_preset_of_counts_asks_for_a_file_and_learns_shares_of_the_library_size(read, tmp_path):
    with pytest.raises(ValueError, match=r"'data\.source\.path' must be given, got none"):
        read(preset="counts")
    path = tmp_path / "counts.npz"
    x = np.random.default_rng(0).poisson([3.0, 50.0, 400.0], (40, 3)).astype(np.uint16)
    log_library = np.full((40, 1), 6.5, dtype=np.float32)
    of_batch = ("--vae.encoder.context_dim", "2", "--vae.decoder.context_dim", "2")
    of_rows = [((), {}), ((), {"y": log_library}), (of_batch, {"y": np.arange(40) % 2})]
    for context, labels in of_rows:
        np.savez(path, x=x, **labels)
        settings = read("--data.source.path", str(path), *context, preset="counts")
        splits = settings.data.load()
        vae = initialized(settings, splits)
        likelihood = vae.likelihood
        assert isinstance(likelihood, pv.NegativeBinomialLikelihood)
        median = splits.train.x(splits.train.levels).sum(1).log().median()
        assert likelihood.offsets() == (6.5 if "y" in labels and not context else median)
        shares = likelihood.shares(torch.zeros(1, vae.latent_dim), torch.zeros(1, vae.context_dim))
        assert torch.allclose(shares[0], torch.tensor([3.0, 50.0, 400.0]) / 453, rtol=0.5)
        assert vae.sample(4, None if not context else 1).shape == (4, 3)


@pytest.mark.parametrize("name", COMPARED)
def test_the_presets_of_the_comparison_differ_in_networks_alone(name):
    settings = read_settings(name, [])[0]
    vae, training = build_vae(settings.vae, IMAGE), settings.training
    assert (type(vae.posterior.network), vae.latent_dim) == COMPARED[name]
    assert repr(settings.data.transform) == "DynamicDraw()"
    optimizer = training.optimizer(vae.parameters())
    assert (type(optimizer), optimizer.param_groups[0]["lr"]) == (torch.optim.Adam, 1e-3)
    assert training.scheduler(optimizer).T_max == training.epochs
    assert training.batches.num_batches(60_000) == 600


def test_a_preset_builds_the_vae_of_its_reference(preset, preset_settings):
    reference = REFERENCES[preset]
    vae = build_vae(preset_settings.vae, reference.x_shape)
    assert linear_sizes(vae.posterior) == reference.encoder
    assert linear_sizes(vae.likelihood) == reference.decoder
    assert {type(m) for m in vae.modules() if not list(m.children())} == {
        nn.Linear,
        nn.ReLU,
        pv.StandardNormalPrior,
    }
    assert type(vae.likelihood) is reference.likelihood
    assert type(vae.posterior) is pv.DiagNormalPosterior
    assert getattr(vae.likelihood, "relaxed", False) == (reference.transform == GREY)


def test_a_preset_trains_as_its_reference_does(preset, preset_settings):
    reference, training = REFERENCES[preset], preset_settings.training
    assert (training.epochs, training.seed) == (reference.epochs, reference.seed)
    assert (training.batches.size, training.batches.num_batches(60_000)) == (
        reference.batch_size,
        reference.num_batches,
    )
    assert isinstance(training.batches, pv.WithReplacement if preset == "onehot" else pv.Shuffled)
    assert getattr(training.batches, "drop_last", False) == (preset == "mnist-dynamic-2d")
    optimizer = make_optimizer(preset_settings)
    assert type(optimizer) is reference.optimizer
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group.get("momentum", 0)) == (
        reference.learning_rate,
        0,
        0,
    )
    assert type(training.objective) is pyro.infer.TraceMeanField_ELBO
    assert [training.kl_schedule(time) for time in (0, 0.5, 100)] == [1, 1, 1]
    assert (training.scheduler, training.clip_norm, training.patience) == (None, None, None)


def test_a_preset_reads_the_data_of_its_reference(preset, preset_settings):
    reference, data = REFERENCES[preset], preset_settings.data
    assert type(data.source) is reference.source
    assert repr(data.transform) == reference.transform
    assert data.validation_fraction == 0


def test_the_onehot_preset_has_2000_rows(read):
    train, _ = read(preset="onehot").data.source.read()
    assert (len(train), train.labels.bincount().tolist()) == (2000, [500] * 4)


def test_the_same_stream_builds_the_same_vae(read):
    settings = read()
    first, second = (seeded_vae(settings) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def seeded_vae(settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_vae(settings.vae, X_SHAPE)


# Mistakes

MISTAKES = [
    (
        "--vae.latent_dims 3",
        r"'--vae.latent_dims' is no setting; the nearest is '--vae.latent_dim'",
    ),
    (
        "--trainingg.epochs 3",
        r"'--trainingg.epochs' is no setting; the nearest is '--training.epochs'",
    ),
    ("--vae.latent_dim two", r"'vae.latent_dim' accepts a whole number, got two"),
    ("--training.epochs 1.5", r"'training.epochs' accepts a whole number, got 1.5"),
    ("--vae.decoder.hidden [3,x]", r"'vae.decoder.hidden' accepts a whole number, got x"),
    (
        "--vae.likelihood.total_count x",
        r"'vae.likelihood.total_count' accepts a whole number, got x",
    ),
    (
        "--vae.likelihood.total_cout 5",
        r"'vae.likelihood.total_cout' is no setting; the nearest is 'total_count'",
    ),
    ("--training.optimizer.lrr 3", r"'training.optimizer.lrr' is no setting; the nearest is 'lr'"),
    (
        "--vae.prior NormalLikelihood",
        r"'vae.prior' accepts a subclass of Prior \(.*\), got NormalLikelihood",
    ),
    (
        "--vae.prior StandardNormalPriro",
        r"got StandardNormalPriro; the nearest is 'StandardNormalPrior'",
    ),
    ("--vae.prior os.system", r"'vae.prior' accepts a subclass of Prior \(.*\), got os.system"),
    ("--vae.prior torch.zeros", r"'vae.prior' accepts a subclass of Prior \(.*\), got torch.zeros"),
    (
        "--vae.prior no.such.Prior",
        "'vae.prior' must name a class that can be imported, got no.such.Prior: No module named 'no'",
    ),
    (
        "--vae.likelihood BernouliLikelihood",
        r"subclass of Likelihood .*; the nearest is 'BernoulliLikelihood'",
    ),
    (
        "--vae.posterior DiagNormal",
        r"subclass of Posterior .*; the nearest is 'DiagNormalPosterior'",
    ),
    (
        "--vae.posterior FlowPosterior --vae.posterior.flow torch.nn.Linear",
        r"'vae.posterior.flow' accepts a subclass of Flow \(.*\) or null, got torch.nn.Linear",
    ),
    ("--vae.decoder MPL", r"'vae.decoder' accepts a subclass of Module .*; the nearest is 'MLP'"),
    (
        "--training.optimizer Adm",
        r"'training.optimizer' accepts a subclass of Optimizer .*; the nearest is 'Adam'",
    ),
    (
        "--training.scheduler StepL",
        r"'training.scheduler' accepts a subclass of LRScheduler .* nearest is 'StepLR'",
    ),
    (
        "--training.objective TraceELBO",
        r"'training.objective' accepts a subclass of ELBO .* nearest is 'Trace_ELBO'",
    ),
    (
        "--training.batches Shufled",
        r"'training.batches' accepts a subclass of Batches .* nearest is 'Shuffled'",
    ),
    ("--training.kl_schedule Warmup", r"subclass of Schedule .* nearest is 'LinearWarmup'"),
    ("--data.source MNST", r"'data.source' accepts a subclass of Source .* nearest is 'MNIST'"),
    (
        "--data.transform Treshold",
        r"'data.transform' accepts a subclass of Transform .* nearest is 'Threshold'",
    ),
    (
        "--training.batches.size 0",
        r"'training.batches.size' must be a whole number of at least 1, got 0",
    ),
    (
        "--training.kl_schedule.weight -1",
        r"'training.kl_schedule.weight' of ConstantKL must be greater than 0, got -1",
    ),
    (
        "--config no.yaml",
        r"'config' accepts a YAML file or YAML itself, got no.yaml, which is no file",
    ),
    ("--config {vae:{latent_dim:q}}", r"'config' must be valid: .*found unexpected ':'"),
    ("--training.epochs", r"'--training.epochs' needs a value, got none"),
    ("digits", r"'digits' is one argument too many"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"), MISTAKES, ids=[arguments for arguments, _ in MISTAKES]
)
def test_a_mistake_is_explained_in_one_sentence(read, arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read(*arguments.split())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["q", "[3]", "2.5"])
def test_a_wrong_value_in_yaml_is_explained_like_one_on_the_command_line(read, value):
    with pytest.raises(
        ValueError, match=r"'(config\.)?vae.latent_dim' accepts a whole number, got"
    ):
        read("--config", f"vae: {{latent_dim: {value}}}")


def test_a_class_that_is_no_network_lacks_the_shapes_that_the_settings_give(read):
    with pytest.raises(
        ValueError, match="'vae.decoder.in_features' and 'vae.decoder.out_features' must be given"
    ):
        read("--vae.decoder", "torch.nn.Linear")


def test_a_wrong_activation_is_not_told_to_be_an_mlp(read):
    with pytest.raises(
        ValueError,
        match=r"'vae.decoder.activation' accepts the import path of a subclass of Module, got Tahn",
    ) as caught:
        read("--vae.decoder.activation", "Tahn")
    assert "(MLP," not in str(caught.value)


def test_an_unknown_preset_is_told_the_presets_and_the_nearest():
    with pytest.raises(
        ValueError,
        match=r"'preset' must be one of counts, .*got mnist20d; the nearest is 'mnist-20d'",
    ):
        read_preset("mnist20d")


# YAML files


def test_a_file_that_leaves_things_out_is_completed_from_the_default(tmp_path, read):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "vae: {latent_dim: 7}\ntraining: {optimizer: {init_args: {lr: 0.5}}, epochs: 3}\n"
    )
    settings = read(preset=str(file))
    assert (settings.vae.latent_dim, settings.training.epochs, settings.training.batches.size) == (
        7,
        3,
        100,
    )
    assert make_optimizer(settings).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    "likelihood", ["NormalLikelihood", "{class_path: NormalLikelihood, init_args: {scale: 0.3}}"]
)
def test_another_class_in_a_file_does_not_inherit_the_arguments_of_the_default(
    tmp_path, read, likelihood
):
    file = tmp_path / "mine.yaml"
    file.write_text(f"vae: {{likelihood: {likelihood}}}\n")
    vae = build_vae(read(preset=str(file)).vae, X_SHAPE)
    assert type(vae.likelihood) is pv.NormalLikelihood
    scale = vae.likelihood.scale
    assert scale.value == 0.3 if "scale" in likelihood else type(scale) is pv.LearnedScale


def test_the_command_line_wins_over_the_file(tmp_path, read):
    file = tmp_path / "mine.yaml"
    file.write_text("vae: {latent_dim: 7}\n")
    assert read("--vae.latent_dim", "5", preset=str(file)).vae.latent_dim == 5
    assert read("--config", str(file)).vae.latent_dim == 7


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("[1, 2]", "a tree of settings, got list"), ("a: [", "YAML"), ("", "got nothing")],
)
def test_a_file_that_is_no_tree_of_settings_is_refused(tmp_path, read, text, sentence):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=sentence) as caught:
        read(preset=str(file))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_printed_settings_can_be_fed_back(tmp_path, read, capsys):
    arguments = [
        "--vae.latent_dim",
        "5",
        "--training.optimizer",
        "SGD",
        "--training.optimizer.lr",
        "0.5",
    ]
    with pytest.raises(SystemExit) as caught:
        read(
            *arguments,
            "--training.scheduler=StepLR",
            "--training.scheduler.step_size=2",
            "--print_config",
        )
    assert not caught.value.code
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    settings, text, _ = read_settings(str(file), [])
    optimizer = make_optimizer(settings)
    assert (settings.vae.latent_dim, type(optimizer), optimizer.param_groups[0]["lr"]) == (
        5,
        torch.optim.SGD,
        0.5,
    )
    assert settings.training.scheduler(optimizer).step_size == 2
    file.write_text(text)  # the text of settings.yaml is a fixed point
    assert read_settings(str(file), [])[1] == text


# Every kind of part by name

SWAPS = {
    "likelihood": (
        ["NormalLikelihood", "scale=0.3"],
        lambda s: vae_of(s).likelihood.scale.value == 0.3,
    ),
    "prior": (["StandardNormalPrior"], lambda s: type(vae_of(s).prior) is pv.StandardNormalPrior),
    "posterior": (
        ["DiagNormalPosterior", "min_scale=0.5"],
        lambda s: vae_of(s).posterior.min_scale == 0.5,
    ),
    "decoder": (
        ["pyro_vae.MLP", "hidden=[7]"],
        lambda s: linear_sizes(vae_of(s).likelihood) == [2, 7, 64],
    ),
    "encoder": (
        ["pyro_vae.MLP", "hidden=[7]"],
        lambda s: linear_sizes(vae_of(s).posterior) == [64, 7, 4],
    ),
    "decoder.activation": (["torch.nn.Tanh"], lambda s: has_module(vae_of(s).likelihood, nn.Tanh)),
    "encoder.activation": (
        ["torch.nn.Softplus"],
        lambda s: has_module(vae_of(s).posterior, nn.Softplus),
    ),
    "optimizer": (["AdamW", "lr=0.5"], lambda s: make_optimizer(s).param_groups[0]["lr"] == 0.5),
    "scheduler": (
        ["StepLR", "step_size=3"],
        lambda s: s.training.scheduler(make_optimizer(s)).step_size == 3,
    ),
    "objective": (
        ["Trace_ELBO", "num_particles=3"],
        lambda s: s.training.objective.num_particles == 3,
    ),
    "kl_schedule": (
        ["LinearWarmup", "epochs=4", "start=0.5"],
        lambda s: s.training.kl_schedule(2) == 0.75,
    ),
    "batches": (
        ["WithReplacement", "size=5", "batches=3"],
        lambda s: s.training.batches.num_dealt(9) == 15,
    ),
    "source": (["OneHot", "num_classes=3"], lambda s: s.data.source.num_classes == 3),
    "transform": (["Threshold", "threshold=0.3"], lambda s: s.data.transform.threshold == 0.3),
}
GROUPS = dict.fromkeys(SWAPS, "vae") | dict.fromkeys(
    ["optimizer", "scheduler", "objective"], "training"
)
GROUPS |= dict.fromkeys(["kl_schedule", "batches"], "training") | dict.fromkeys(
    ["source", "transform"], "data"
)


def vae_of(settings):
    return build_vae(settings.vae, X_SHAPE)


def has_module(part, kind):
    return any(type(module) is kind for module in part.modules()) and not any(
        type(module) is nn.ReLU for module in part.modules()
    )


@pytest.mark.parametrize("kind", SWAPS)
def test_every_kind_of_part_is_swapped_by_name_on_the_command_line(read, kind):
    (name, *init), holds = SWAPS[kind]
    option = f"--{GROUPS[kind]}.{kind}"
    assert holds(read(option, name, *(f"{option}.{setting}" for setting in init)))


@pytest.mark.parametrize("scale", ["LearnedScale", "NetworkScale", "FixedScale"])
def test_the_scale_of_a_normal_likelihood_is_a_part_with_a_name(read, scale):
    settings = read("--vae.likelihood", "NormalLikelihood", "--vae.likelihood.scale", scale)
    assert type(vae_of(settings).likelihood.scale) is getattr(pv, scale)


MINE = """
import pyro.infer, torch
from torch import nn
import pyro_vae as pv
from pyro_vae.data import Batches
from pyro_vae.objectives import Schedule
from pyro_vae.data import Source
from pyro_vae.data import Transform

class MyPrior(pv.StandardNormalPrior): pass
class MyLikelihood(pv.NormalLikelihood):
    def __init__(self, network, x_shape, wide: bool = False):
        super().__init__(network, x_shape, scale=2.0 if wide else 1.0)
class MyPosterior(pv.DiagNormalPosterior): pass
class MyNetwork(pv.MLP):
    def __init__(self, in_shape, out_shape, width: int = 3):
        super().__init__(in_shape, [width], out_shape)
class MyActivation(nn.Tanh): pass
class MyOptimizer(torch.optim.SGD): pass
class MyScheduler(torch.optim.lr_scheduler.ExponentialLR): pass
class MyObjective(pyro.infer.Trace_ELBO): pass
class MySchedule(Schedule):
    def __call__(self, epoch): return 0.5
class MyBatches(Batches):
    def __init__(self, size: int = 9): super().__init__(size)
    def num_batches(self, num_rows): return 1
    def indices(self, num_rows): return iter([torch.arange(self.size)])
class MySource(Source):
    def read(self): return (pv.Rows(torch.eye(3), pv.Identity()),) * 2
class MyTransform(Transform):
    def __call__(self, levels, max_level): return -levels
"""
MY_CLASSES = {
    "prior": ("MyPrior", [], lambda s: vae_of(s).prior),
    "likelihood": ("MyLikelihood", ["wide=true"], lambda s: vae_of(s).likelihood),
    "posterior": ("MyPosterior", ["min_scale=0.5"], lambda s: vae_of(s).posterior),
    "decoder": ("MyNetwork", ["width=5"], lambda s: vae_of(s).likelihood.network),
    "encoder": (
        "MyNetwork",
        ["width=5"],
        lambda s: vae_of(s).posterior.network.network,
    ),  # behind Standardized
    "decoder.activation": ("MyActivation", [], lambda s: vae_of(s).likelihood.network.layers[1]),
    "optimizer": ("MyOptimizer", ["lr=0.5"], make_optimizer),
    "scheduler": ("MyScheduler", ["gamma=0.5"], lambda s: s.training.scheduler(make_optimizer(s))),
    "objective": ("MyObjective", ["num_particles=3"], lambda s: s.training.objective),
    "kl_schedule": ("MySchedule", [], lambda s: s.training.kl_schedule),
    "batches": ("MyBatches", ["size=7"], lambda s: s.training.batches),
    "source": ("MySource", [], lambda s: s.data.source),
    "transform": ("MyTransform", [], lambda s: s.data.transform),
}


def importable(monkeypatch, folder, module, text):
    """Write a module of the user's, importable for the length of a test; it leaves a mark when it is imported."""
    mark = folder / f"{module}.imported"
    (folder / f"{module}.py").write_text(f"open({str(mark)!r}, 'w').close()\n{text}")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    importlib.invalidate_caches()
    return mark


@pytest.mark.parametrize("kind", thinned(MY_CLASSES, 2))
def test_a_class_of_the_users_own_is_named_by_its_import_path(tmp_path, monkeypatch, read, kind):
    importable(monkeypatch, tmp_path, "my_parts", MINE)
    name, init, part = MY_CLASSES[kind]
    option = f"--{GROUPS[kind]}.{kind}"
    settings = read(option, f"my_parts.{name}", *(f"{option}.{setting}" for setting in init))
    assert type(part(settings)).__name__ == name
    assert type(part(settings)).__module__ == "my_parts"
    monkeypatch.delitem(sys.modules, "my_parts")


# What a run folder may name


EVIL = "from pyro_vae import StandardNormalPrior\nclass EvilPrior(StandardNormalPrior): pass\n"


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that nobody asked for; returns the file that shows that it was imported."""
    yield importable(monkeypatch, tmp_path, "evil_parts", EVIL)
    sys.modules.pop("evil_parts", None)


def write_settings(folder, *path, value):
    """A run folder with the default settings, but for one."""
    tree, _ = read_preset("digits")
    branch = tree
    for key in path[:-1]:
        branch = branch[key]
    branch[path[-1]] = value
    folder.mkdir()
    (folder / "settings.yaml").write_text(yaml.safe_dump(tree))
    (folder / "run.json").write_text('{"x_shape": [1, 8, 8], "format": 2, "versions": {}}')
    return folder


PLACES = [
    ("vae", "prior"),
    ("vae", "decoder", "init_args", "activation"),
    ("training", "optimizer"),
    ("training", "objective"),
    ("data", "source"),
    ("data", "unheard_of"),
]
FORMS = {
    "a bare name": lambda name: name,
    "a class path": lambda name: {"class_path": name},
    "spaces": lambda name: f" {name.replace('.', ' . ')}\n",
    "a list": lambda name: [name],
    "a nested list": lambda name: [{"init_args": {"deep": [[name]]}}],
}
# The parser reads a text where it expects a tree as YAML, so a tree can hide in a text, and a text in that.
TEXTS = {
    "YAML": "class_path: evil_parts.EvilPrior\n",
    "JSON": '{"class_path": "evil_parts.EvilPrior"}',
    "a text in a text": '{class_path: pyro_vae.MLP, init_args: "{activation: evil_parts.EvilPrior}"}',
}


@pytest.mark.parametrize("place", PLACES, ids=".".join)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["os.system", "evil_parts.EvilPrior"])
def test_a_run_folder_that_names_foreign_code_is_refused_before_an_import(
    tmp_path, evil, place, form, name
):
    run = write_settings(tmp_path / "run", *place, value=FORMS[form](name))
    with pytest.raises(
        ValueError, match=r"settings may name classes of pyro_vae, pyro, torch.*, got"
    ):
        load_settings(run)
    assert not evil.exists()
    assert "evil_parts" not in sys.modules


@pytest.mark.parametrize("place", [("vae",), *PLACES], ids=".".join)
@pytest.mark.parametrize("text", TEXTS)
def test_a_run_folder_cannot_hide_foreign_code_in_a_text(tmp_path, evil, place, text):
    run = write_settings(tmp_path / "run", *place, value=TEXTS[text])
    with pytest.raises(ValueError, match="settings may "):
        load_settings(run)
    assert not evil.exists()


@pytest.mark.parametrize(
    "value", ["{file}", "{{vae: {{prior: evil_parts.EvilPrior}}}}"], ids=["file", "text"]
)
def test_a_run_folder_cannot_bring_further_settings_in_by_the_config_option(tmp_path, evil, value):
    file = tmp_path / "more" / "settings"
    file.parent.mkdir()
    file.write_text("vae: {prior: evil_parts.EvilPrior}")
    run = write_settings(tmp_path / "run", "config", value=value.format(file=file))
    with pytest.raises(ValueError, match=r"'config' is no setting|settings may "):
        load_settings(run)
    assert not evil.exists()


def test_load_refuses_foreign_code_too(tmp_path, evil):
    run = write_settings(tmp_path / "run", "vae", "prior", value="evil_parts.EvilPrior")
    with pytest.raises(
        ValueError, match=r"got evil_parts.EvilPrior: allow evil_parts by name if you trust it"
    ):
        pv.load(run)
    assert not evil.exists()


@pytest.mark.parametrize("place", PLACES[:5], ids=".".join)
@pytest.mark.parametrize(
    "name",
    ["torch.zeros", "torch.hub.load", "torch.nn.init.zeros_", "pyro_vae.runs.folder.os.system"],
)
def test_a_function_of_a_trusted_package_is_no_class_for_any_place(tmp_path, place, name):
    run = write_settings(tmp_path / "run", *place, value=name)
    with pytest.raises(
        ValueError, match=rf"'{'.'.join(place).replace('.init_args', '')}' (accepts|must be)"
    ):
        load_settings(run)


def test_a_package_that_is_allowed_is_imported(tmp_path, evil):
    run = write_settings(tmp_path / "run", "vae", "prior", value="evil_parts.EvilPrior")
    settings = load_settings(run, allow=["evil_parts"])
    assert type(vae_of(settings).prior).__name__ == "EvilPrior"
    assert evil.exists()


@pytest.mark.parametrize("path", ["my.file.npy", "file.npy", "some/folder/my.file.npz", "évil.npy"])
def test_the_name_of_a_data_file_is_not_taken_for_code(tmp_path, path):
    source = {"class_path": "pyro_vae.ArrayFile", "init_args": {"path": path}}
    assert (
        load_settings(
            write_settings(tmp_path / "run", "data", "source", value=source)
        ).data.source.path
        == path
    )


@pytest.mark.parametrize("given", [["--data.max_level", "255"], ["--data.source.max_level", "255"]])
def test_the_highest_level_and_the_channels_of_a_file_are_settings(tmp_path, given):
    levels = np.arange(20 * 5 * 4 * 3).reshape(20, 5, 4, 3) % 256
    np.save(tmp_path / "x.npy", levels.astype(np.float64))
    arguments = ["--data.source", "ArrayFile", "--data.source.path", str(tmp_path / "x.npy")]
    arguments += ["--data.source.channels_last", "true", "--data.transform", "UnitInterval"]
    data = read_settings("digits", [*arguments, *given])[0].data
    rows = data.load().train
    assert rows.x_shape == (3, 5, 4)
    torch.testing.assert_close(rows.batch(slice(None), torch.float64), rows.levels / 255)


@pytest.mark.parametrize(
    "name", ["pyro_vaex.Prior", "torchx.nn.Tanh", "pyro_vae_evil.P", "Pyro.infer.X", "_torch.a"]
)
def test_a_package_is_trusted_by_its_whole_name(name):
    with pytest.raises(ValueError, match=f"got {name}: allow {name.split('.')[0]} by name"):
        check_trusted({"vae": {"prior": name}}, ("pyro_vae", "pyro", "torch"))


def test_the_settings_of_every_preset_are_trusted(preset):
    check_trusted(yaml.safe_load(read_settings(preset, [])[1]), ("pyro_vae", "pyro", "torch"))


def test_the_parser_that_reads_a_run_folder_is_the_one_of_the_command_line():
    text = read_settings(
        "mnist-20d", ["--training.patience", "3", "--data.validation_fraction", "0.1"]
    )[1]
    parsed = settings_parser().parse_object(yaml.safe_load(text))
    assert (parsed.training.patience, parsed.data.validation_fraction, parsed.vae.latent_dim) == (
        3,
        0.1,
        20,
    )
