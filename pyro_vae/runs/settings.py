"""Settings: one typed tree that YAML files and command lines fill in, and the VAE that it
describes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import yaml
from torch import nn

# Imported for their names: what stands here can be called by its class name alone.
from pyro_vae.data import sources, transforms
from pyro_vae.data.missing import Missing
from pyro_vae.data.rows import Data, Rows, as_rows
from pyro_vae.parts.contracts import (
    EncoderInputFactory,
    Likelihood,
    LikelihoodFactory,
    Network,
    NetworkFactory,
    Posterior,
    Prior,
)
from pyro_vae.parts.encoder_inputs import AsIs, Standardized, WithMask
from pyro_vae.runs.folder import RunFolder, read_yaml, settings_of_run
from pyro_vae.runs.record import DataRecord, data_record
from pyro_vae.runs.trust import check_parsed, trusted_packages
from pyro_vae.support.checks import Shape, check_max_level, nearest, one_line, whole
from pyro_vae.support.streams import stream
from pyro_vae.training.initialization import initialize
from pyro_vae.training.settings import Training
from pyro_vae.vae import VAE

if TYPE_CHECKING:
    from pyro_vae.runs.parser import SentenceParser

_PRESETS = resources.files("pyro_vae.runs") / "presets"
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
        validation_fraction: the share of the training rows that is set apart, to stop early and to
            choose by.
        seed: the draw of those rows.
        max_level: the highest level there can be, such as 255 for 8-bit levels that are stored as
            real numbers; what the source says when null.
    """

    source: sources.Source
    transform: transforms.Transform
    validation_fraction: float = 0.0
    seed: int = 0
    max_level: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"'validation_fraction' must lie in [0, 1), got {self.validation_fraction}."
            )
        whole(self.seed, "seed", least=0)
        if self.max_level is not None:
            check_max_level(self.max_level)

    def load(self) -> sources.Splits:
        """Read the data and split them."""
        return self.split(*self.read())

    def read(self) -> tuple[Rows, Rows]:
        """Return the training and test rows as the source gives them.

        Their highest level is that of these settings, if they say one.
        """
        train, test = self.source.read()
        return sources.limited(train, self.max_level), sources.limited(test, self.max_level)

    def split(self, train: Rows, test: Rows) -> sources.Splits:
        """Return what was read with validation rows set apart, and with the transform."""
        fraction = self.validation_fraction
        return sources.split_rows(train, test, self.transform, fraction, self.seed)

    def record(self, train: Rows, test: Rows) -> DataRecord:
        """Return what a run keeps of what was read."""
        return data_record(train, test, round(len(train) * self.validation_fraction))


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
        network=lambda out_shape: model.decoder(in_shape=(latent_dim,), out_shape=out_shape),
        x_shape=x_shape,
    )
    posterior = model.posterior(
        network=lambda out_shape: _encoder(model, likelihood, out_shape),
        x_shape=x_shape,
        latent_dim=latent_dim,
    )
    return VAE(prior, likelihood, posterior, missing=model.missing)


def _encoder(model: ModelSettings, likelihood: Likelihood, out_shape: torch.Size) -> nn.Module:
    """The encoder's network, with what it sees of x in front of it."""

    def network(in_shape: Shape) -> nn.Module:
        return model.encoder(in_shape=in_shape, out_shape=out_shape)

    def with_mask(x_shape: Shape) -> nn.Module:
        return WithMask(network, x_shape)

    sees = model.encoder_sees or likelihood.encoder_input or Standardized
    encoder = sees(
        network=with_mask if model.encoder_sees_mask else network, x_shape=likelihood.x_shape
    )
    # x as it is needs no module in front: the weights keep the names that they have always had.
    return encoder.network if isinstance(encoder, AsIs) else encoder


def prepare(settings: Settings) -> tuple[VAE, sources.Splits]:
    """What a run starts from: the VAE with the fresh weights that its seed decides, and the data."""
    check_settings(settings)
    splits = settings.data.load()
    return initialized(settings, splits), splits


def initialized(settings: Settings, splits: sources.Splits) -> VAE:
    """Return the VAE with the fresh weights that its seed decides.

    What the settings say is started from the training rows.
    """
    with stream(settings.training.seed, 0):
        vae = build_vae(settings.vae, splits.train.x_shape)
        initialize(vae, splits.train)
        if settings.vae.initialize_prior:
            index = torch.randperm(len(splits.train))[: vae.prior.num_initial_rows]
            vae.prior.initialize(splits.train.batch(index))
    if settings.vae.initialize_bias:
        vae.likelihood.initialize_bias(splits.train.mean())
    return vae


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
        return torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
        )
    except RuntimeError as error:
        raise ValueError(
            f"'device' must be auto, or a device of torch's such as cpu or cuda, got {name}."
        ) from error


def load(run: str | Path, weights: str = "best", allow: Sequence[str] = ()) -> VAE:
    """The VAE of a run folder, on the CPU and in evaluation mode.

    No code of the folder's is run: see `pyro_vae.runs.trust`.

    Arguments:
        run: the folder.
        weights: `"best"` or `"last"`.
        allow: further packages whose classes the settings may name.

    Raises:
        ValueError: a file is missing, damaged, of a newer format, or names a class that is not
            allowed.
    """
    folder = RunFolder(run)
    settings = load_settings(run, allow)
    x_shape = folder.info().x_shape
    with stream(
        0
    ):  # fresh weights are drawn and then replaced: the caller's random state has no part in it
        vae = build_vae(settings.vae, x_shape)
    try:
        vae.load_state_dict(folder.weights(weights))
    except (AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{folder.path / weights}.pt must hold the weights of this VAE, but does not: {one_line(error)}"
        ) from error
    return vae.eval()


def load_settings(run: str | Path, allow: Sequence[str] = ()) -> Settings:
    """The settings of a run folder; see `load`."""
    parser = settings_parser()
    namespace = parser.parse_object(RunFolder(run).settings(allow))
    return instantiate(parser, namespace, trusted_packages(allow))


def load_data(run: str | Path, allow: Sequence[str] = ()) -> sources.Splits:
    """Return the rows that a run was trained, validated and tested on.

    Arguments:
        run: the folder; the file of its data is found where it was, or where it moved with it.
        allow: further packages whose classes the settings may name.

    Raises:
        ValueError: if the data are others than those of the run, or what `load` refuses.
    """
    data = load_settings(run, allow).data
    rows = data.read()
    RunFolder(run).check_data(data.record(*rows))
    return data.split(*rows)


def rows_like(run: str | Path, data: str | Path | Data, allow: Sequence[str] = ()) -> Rows:
    """Return new rows made x as the rows of a run are.

    They have its transform, and the highest level of its training data.

    Arguments:
        run: the folder.
        data: levels as they are stored, or a `.npy` or `.npz` file of them.
        allow: further packages whose classes the settings may name.

    Raises:
        ValueError: if levels exceed those of the training data and the transform divides by the
            highest, or what `load` refuses.
    """
    settings = load_settings(run, allow)
    rows = _as_stored(data, settings.data.source.channels_last)
    if not isinstance(rows.transform, transforms.Identity):
        raise ValueError(
            f"'data' must hold levels as they are stored, got rows with the transform {rows.transform!r}."
        )
    levels = replace(rows, max_level=_max_level(RunFolder(run), settings.data))
    return sources.transformed(levels, settings.data.transform, 2)


def _as_stored(data: str | Path | Data, channels_last: bool | None) -> Rows:
    if isinstance(data, (str, Path)):
        return sources.read_array(str(data), channels_last=channels_last)
    return as_rows(data, missing="nan")


def _max_level(folder: RunFolder, data: DataSettings) -> float:
    """The highest level of a run's training data; found from the data where it keeps no record."""
    stored = folder.info().data
    if stored is not None:
        return stored.max_level
    found = data.record(*data.read())
    folder.check_data(found)
    return found.max_level


def read_preset(preset: str, allow: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of a preset, and the arguments that lay a YAML file over the default.

    Arguments:
        preset: its name, or a YAML file.
        allow: packages of the user's own that the settings of a run may name.

    Raises:
        ValueError: no such preset and no such file.
    """
    names = sorted(
        file.name.removesuffix(".yaml")
        for file in _PRESETS.iterdir()
        if file.name.endswith(".yaml")
    )
    if preset in names:
        return _read_own(preset), []
    if not Path(preset).is_file():
        known = ", ".join(names)
        raise ValueError(
            f"'preset' must be one of {known}, or a YAML file, got {preset}{nearest(preset, names)}."
        )
    stored = settings_of_run(preset, allow)
    if stored is not None:
        return stored, []
    read_yaml(Path(preset).read_text(encoding="utf-8"), preset)
    return _read_own(_DEFAULT_PRESET), ["--config", preset]


def _read_own(preset: str) -> dict[str, Any]:
    return yaml.safe_load((_PRESETS / f"{preset}.yaml").read_text(encoding="utf-8"))


def settings_parser(
    defaults: dict[str, Any] | None = None,
    allow: Sequence[str] = (),
) -> "SentenceParser":
    """Return a parser for `Settings`; its option `--config` reads YAML.

    Arguments:
        defaults: the settings where nothing else is said, as `read_preset` gives them; none by
            default.
        allow: packages of the user's own that the settings of a run may name.
    """
    from pyro_vae.runs.parser import SentenceParser

    parser = SentenceParser()
    parser.allow = allow
    parser.add_argument(
        "--config",
        action="config",
        help="a YAML file, or YAML itself, with some or all of the settings",
    )
    parser.add_class_arguments(Settings)
    parser.start_new_classes_afresh()
    parser.set_nested_defaults(defaults or {})
    return parser


def instantiate(
    parser: "SentenceParser",
    namespace: Any,
    packages: Sequence[str] | None = None,
) -> Settings:
    """Return the settings that a parser has read; other arguments of the parser are left aside.

    Arguments:
        parser: the parser.
        namespace: what it has read.
        packages: those that every class must come from; any by default.

    Raises:
        ValueError: if anything but a class of these packages would be called.
    """
    read = {name: namespace[name] for name in Settings.__dataclass_fields__}
    check_parsed(read, packages)
    fields = parser.instantiate(namespace)
    return Settings(**{name: fields[name] for name in read})
