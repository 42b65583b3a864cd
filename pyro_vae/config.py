"""Settings: one typed tree that YAML files and command lines fill in, and the VAE that it describes."""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import yaml
from torch import nn

# Imported for their names: what stands here can be called by its class name alone.
from pyro_vae import flows, inputs, likelihoods, nets, objectives, posteriors, priors, sources, transforms  # noqa: F401
from pyro_vae.checkpoint import RunFolder, upgraded
from pyro_vae.errors import nearest, one_line
from pyro_vae.initialization import initialize
from pyro_vae.inputs import AsIs, Standardized, WithMask
from pyro_vae.missing import Missing
from pyro_vae.parts import (
    EncoderInputFactory,
    Likelihood,
    LikelihoodFactory,
    Network,
    NetworkFactory,
    Posterior,
    Prior,
    Shape,
)
from pyro_vae.streams import stream
from pyro_vae.training import Training
from pyro_vae.vae import VAE

if TYPE_CHECKING:
    from pyro_vae.cli import SentenceParser

# The packages whose classes a run folder may name without being asked for.
TRUSTED = ("pyro_vae", "pyro", "torch", "zuko")
_PRESETS = resources.files("pyro_vae") / "presets"
_DEFAULT_PRESET = "digits"


class PriorFactory(Protocol):
    """A Prior class, but for what the settings decide elsewhere."""

    def __call__(self, *, latent_dim: int) -> Prior: ...


class PosteriorFactory(Protocol):
    """A Posterior class, but for its network, the shape of the data and the latent dimension."""

    def __call__(self, *, network: Network, x_shape: Shape, latent_dim: int) -> Posterior: ...


@dataclass
class ModelSettings:
    """The VAE.

    Arguments:
        latent_dim: the number D of latent dimensions.
        prior: p(z), a Prior class.
        likelihood: p(x | z), a Likelihood class.
        posterior: q(z | x), a Posterior class.
        decoder: the likelihood's network, a class of network.
        encoder: the posterior's network, a class of network.
        initialize_bias: start the likelihood's output bias at the mean of the training data.
        initialize_prior: start the prior at training rows, as a VampPrior can.
        missing: nan to take NaN in the data as missing entries; null to refuse it.
        encoder_sees: the form in which the encoder sees x, an EncoderInput class; null for the one
            that suits the likelihood.
        encoder_sees_mask: give the encoder the mask of observed entries beside that, stacked along
            the first dimension.
    """

    latent_dim: int
    prior: PriorFactory
    likelihood: LikelihoodFactory
    posterior: PosteriorFactory
    decoder: NetworkFactory
    encoder: NetworkFactory
    initialize_bias: bool = False
    initialize_prior: bool = False
    missing: Missing = None
    encoder_sees: EncoderInputFactory | None = None
    encoder_sees_mask: bool = False

    def __post_init__(self) -> None:
        if self.encoder_sees_mask and self.missing is None:
            raise ValueError("'encoder_sees_mask' needs 'missing' to be nan, got null.")


@dataclass
class DataSettings:
    """The data.

    Arguments:
        source: where they come from, a Source class.
        transform: what makes x from the stored levels, binarisation included, a Transform class.
        validation_fraction: the share of the training rows that is set apart, to stop early and to choose by.
        seed: the draw of those rows.
    """

    source: sources.Source
    transform: transforms.Transform
    validation_fraction: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"'validation_fraction' must lie in [0, 1), got {self.validation_fraction}.")
        if self.seed < 0:
            raise ValueError(f"'seed' must be 0 or more, got {self.seed}.")

    def load(self) -> sources.Splits:
        """Read the data and split them."""
        return sources.load_splits(self.source, self.transform, self.validation_fraction, self.seed)


@dataclass
class Settings:
    """All settings of a run.

    Arguments:
        vae: the VAE.
        data: the data.
        training: how to train.
        device: where to train: cpu, cuda, or auto for cuda where there is one.
    """

    vae: ModelSettings
    data: DataSettings
    training: Training
    device: str = "auto"


def build_vae(model: ModelSettings, x_shape: Shape) -> VAE:
    """The VAE that settings describe, with fresh weights from torch's default generator."""
    latent_dim = model.latent_dim
    prior = model.prior(latent_dim=latent_dim)
    likelihood = model.likelihood(
        network=lambda out_shape: model.decoder(in_shape=(latent_dim,), out_shape=out_shape), x_shape=x_shape
    )
    posterior = model.posterior(
        network=lambda out_shape: _encoder(model, likelihood, out_shape), x_shape=x_shape, latent_dim=latent_dim
    )
    return VAE(prior, likelihood, posterior, missing=model.missing)


def _encoder(model: ModelSettings, likelihood: Likelihood, out_shape: torch.Size) -> nn.Module:
    """The encoder's network, with what it sees of x in front of it."""

    def network(in_shape: Shape) -> nn.Module:
        return model.encoder(in_shape=in_shape, out_shape=out_shape)

    def with_mask(x_shape: Shape) -> nn.Module:
        return WithMask(network, x_shape)

    sees = model.encoder_sees or likelihood.encoder_input or Standardized
    encoder = sees(network=with_mask if model.encoder_sees_mask else network, x_shape=likelihood.x_shape)
    # x as it is needs no module in front: the weights keep the names that they have always had.
    return encoder.network if isinstance(encoder, AsIs) else encoder


def prepare(settings: Settings) -> tuple[VAE, sources.Splits]:
    """What a run starts from: the VAE with the fresh weights that its seed decides, and the data."""
    check_settings(settings)
    splits = settings.data.load()
    with stream(settings.training.seed, 0):
        vae = build_vae(settings.vae, splits.train.x_shape)
        initialize(vae, splits.train)
        if settings.vae.initialize_prior:
            index = torch.randperm(len(splits.train))[: vae.prior.num_initial_rows]
            vae.prior.initialize(splits.train.batch(index))
    if settings.vae.initialize_bias:
        vae.likelihood.initialize_bias(splits.train.mean())
    return vae, splits


def check_settings(settings: Settings) -> None:
    """Refuse values that cannot work whatever the data are, before any data are read.

    Raises:
        ValueError: the first of them.
    """
    device(settings.device)
    with stream(0):
        settings.vae.prior(latent_dim=settings.vae.latent_dim)
        optimizer = settings.training.optimizer([nn.Parameter(torch.zeros(1))])
        if settings.training.scheduler is not None:
            settings.training.scheduler(optimizer)


def device(name: str) -> torch.device:
    """The device of this name; auto is cuda where there is one."""
    try:
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ValueError(f"'device' must be auto, or a device of torch's such as cpu or cuda, got {name}.") from error


def load(run: str | Path, weights: str = "best", allow: Sequence[str] = ()) -> VAE:
    """The VAE of a run folder, on the CPU and in evaluation mode.

    No code of the folder's is run: a class from outside pyro_vae, pyro, torch and zuko is refused before it is imported.

    Arguments:
        run: the folder.
        weights: `"best"` or `"last"`.
        allow: further packages whose classes the settings may name.

    Raises:
        ValueError: a file is missing, damaged, of a newer format, or names a class that is not allowed.
    """
    folder = RunFolder(run)
    info = folder.info()
    settings = load_settings(run, allow)
    with stream(0):  # fresh weights are drawn and then replaced: the caller's random state has no part in it
        vae = build_vae(settings.vae, info.x_shape)
    try:
        vae.load_state_dict(folder.weights(weights))
    except (AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{folder.path / weights}.pt must hold the weights of this VAE, but does not: {one_line(error)}"
        ) from error
    return vae.eval()


def load_settings(run: str | Path, allow: Sequence[str] = ()) -> Settings:
    """The settings of a run folder; see `load`."""
    tree = stored_settings(RunFolder(run))
    # A parser takes the name of a file in place of a group of settings, and reads it.
    for name, value in tree.items():
        if name not in Settings.__dataclass_fields__ or (name != "device" and not isinstance(value, dict)):
            raise ValueError(f"settings may hold groups of settings, but '{name}' is no setting or no group.")
    # A trusted name that is not installed could be a file of the current folder.
    known = [package for package in TRUSTED if package in sys.modules or any(distributions(name=package))]
    check_trusted(tree, (*known, *allow))
    parser = settings_parser()
    return instantiate(parser, parser.parse_object(tree))


def stored_settings(folder: RunFolder) -> dict[str, Any]:
    """The settings of a run folder as a tree, which says for a folder of any format what it meant."""
    tree = _read_yaml(folder.read_text("settings.yaml"), f"{folder.path}/settings.yaml")
    has_format = (folder.path / "run.json").is_file()
    return upgraded(tree, folder.info().format) if has_format else tree


def check_trusted(tree: Any, packages: Sequence[str]) -> None:
    """Refuse settings that name anything importable outside these packages; nothing is imported.

    A parser also takes YAML inside a text: a text that is no plain name or number is refused too.

    Raises:
        ValueError: they do.
    """
    for text in _texts(tree):
        name = "".join(text.split())
        if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
            package = name.split(".")[0]
            if package not in packages:
                raise ValueError(
                    f"settings may name classes of {', '.join(packages)}, got {name}: allow {package} by name "
                    "if you trust it."
                )
        elif not re.fullmatch(r"[\w.:+-]*", text):
            raise ValueError(f"settings may hold names and numbers, got the text {one_line(text)!r}.")


def _texts(tree: Any) -> Iterator[str]:
    """Every text in a tree of settings but the names of files; no setting called path takes a class."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key != "path" or not isinstance(value, str):
                yield from _texts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value)
    elif isinstance(tree, str):
        yield tree


def read_preset(preset: str) -> tuple[dict[str, Any], list[str]]:
    """The settings of a preset; for a YAML file of the user's, those of the default, and the arguments to lay the file over.

    Raises:
        ValueError: no such preset and no such file.
    """
    names = sorted(file.name.removesuffix(".yaml") for file in _PRESETS.iterdir() if file.name.endswith(".yaml"))
    if preset not in names and not Path(preset).is_file():
        known = ", ".join(names)
        raise ValueError(f"'preset' must be one of {known}, or a YAML file, got {preset}{nearest(preset, names)}.")
    name, arguments = (preset, []) if preset in names else (_DEFAULT_PRESET, ["--config", preset])
    if arguments:
        _read_yaml(Path(preset).read_text(encoding="utf-8"), preset)
    return yaml.safe_load((_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")), arguments


def settings_parser(defaults: dict[str, Any] | None = None) -> "SentenceParser":
    """A parser for `Settings`; its option `--config` reads YAML.

    Arguments:
        defaults: the settings where nothing else is said, as `read_preset` gives them; none by default.
    """
    from pyro_vae.cli import SentenceParser

    parser = SentenceParser()
    parser.add_argument(
        "--config", action="config", help="a YAML file, or YAML itself, with some or all of the settings"
    )
    parser.add_class_arguments(Settings)
    parser.set_nested_defaults(defaults or {})
    return parser


def instantiate(parser: "SentenceParser", namespace: Any) -> Settings:
    """The settings that a parser has read; other arguments of the parser are left aside."""
    fields = parser.instantiate(namespace)
    return Settings(**{name: fields[name] for name in Settings.__dataclass_fields__})


def _read_yaml(text: str, name: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} must be YAML, but is damaged: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{name} must hold a tree of settings, got {type(tree).__name__}.")
    return tree
