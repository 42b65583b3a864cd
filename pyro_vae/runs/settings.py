"""Settings: a typed tree that YAML and command lines fill in, and the VAE that it describes."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from inspect import signature
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import yaml
from jsonargparse import Namespace
from torch import nn

# The parser knows a class by its name alone once its module is imported.
from pyro_vae.data import sources, transforms
from pyro_vae.data.missing import Missing
from pyro_vae.data.readers.choice import reader_for, source_for
from pyro_vae.data.readers.files import FileSource
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
from pyro_vae.runs.devices import device
from pyro_vae.runs.errors import (
    argument_named,
    class_named,
    made_from,
    networks_named,
    shapes_named,
    whole_names,
)
from pyro_vae.runs.folder import RunFolder, settings_of_run
from pyro_vae.runs.reading import check_kind, settings_text
from pyro_vae.runs.record import DataRecord, data_record
from pyro_vae.runs.trust import check_parsed, trusted_packages
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import Shape, check_max_level, nearest, one_line, whole
from pyro_vae.support.modules import not_finite, state_difference
from pyro_vae.support.streams import stream
from pyro_vae.training.initialization import initialize
from pyro_vae.training.loggers import Drawing, Logged, LoggerFactory, logged
from pyro_vae.training.settings import Training
from pyro_vae.vae import VAE

if TYPE_CHECKING:
    from pyro_vae.runs.parser import SentenceParser

_PRESETS = resources.files("pyro_vae.runs") / "presets"
_DEFAULT_PRESET = "digits"


class PriorFactory(Protocol):
    """A Prior class that still needs the latent dimension."""

    def __call__(self, *, latent_dim: int) -> Prior: ...


class PosteriorFactory(Protocol):
    """A Posterior class that still needs its network, the shape of x and the latent dimension."""

    def __call__(self, *, network: Network, x_shape: Shape, latent_dim: int) -> Posterior: ...


@dataclass
class ModelSettings:
    """Settings of the VAE.

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
        encoder_sees_mask: also give the encoder the mask of observed entries, stacked along the
            first dimension.
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
            raise ValueError("'vae.encoder_sees_mask' needs 'missing' to be nan, got null.")


@dataclass
class DataSettings:
    """Settings of the data.

    Arguments:
        source: the origin of the data, a Source class.
        transform: makes x from the stored levels, binarisation included, a Transform class.
        validation_fraction: the share of the training rows that is set apart for validation, to
            stop early and to choose the best weights.
        seed: the seed of the draw of validation rows.
        max_level: the highest possible level, such as 255 for 8-bit levels that are stored as real
            numbers; null for the one that the source gives.
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
        """Return the training and test rows of the source.

        Their highest level is `max_level`, unless it is None.
        """
        train, test = sources.read_source(self.source)
        return sources.limited(train, self.max_level), sources.limited(test, self.max_level)

    def split(self, train: Rows, test: Rows) -> sources.Splits:
        """Set validation rows apart from the training rows, and apply the transform."""
        fraction = self.validation_fraction
        return sources.split_rows(train, test, self.transform, fraction, self.seed)

    def record(self, train: Rows, test: Rows) -> DataRecord:
        """Return the record of the rows, which a run keeps."""
        return data_record(train, test, round(len(train) * self.validation_fraction))


@dataclass
class LoggingSettings:
    """Settings of logging; `history.csv` is written in any case.

    Arguments:
        loggers: Logger classes, such as TensorBoard, which write to the run folder.
        every: the number of epochs from one drawing of reconstructions and samples to the next.
    """

    loggers: list[LoggerFactory] = field(default_factory=list)
    every: int = 5

    def __post_init__(self) -> None:
        whole(self.every, "every")

    def logged(self, folder: str | PathLike, figures: Mapping[str, Drawing]) -> Logged:
        """Return a function for `on_epoch` of `fit` that passes each epoch on to the loggers.

        Arguments:
            folder: the folder that they write to.
            figures: functions that draw figures, by the names of the figures.
        """
        loggers = [make(folder=str(folder)) for make in self.loggers]
        return logged(*loggers, figures=figures, every=self.every)


@dataclass
class Settings:
    """All settings of a run.

    Arguments:
        vae: the VAE.
        data: the data.
        training: the settings of training.
        logging: the loggers of its epochs.
        device: where to train: cpu, cuda, or auto, which is cuda if there is one.
    """

    vae: ModelSettings
    data: DataSettings
    training: Training
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    device: str = "auto"


def build_vae(model: ModelSettings, x_shape: Shape) -> VAE:
    """Build the VAE that settings describe, with new weights from torch's default generator."""
    latent_dim = model.latent_dim
    prior = model.prior(latent_dim=latent_dim)

    def decoder(out_shape: torch.Size) -> nn.Module:
        with shapes_named("vae.decoder"):
            return model.decoder(in_shape=(latent_dim,), out_shape=out_shape)

    likelihood = model.likelihood(network=decoder, x_shape=x_shape)
    posterior = model.posterior(
        network=lambda out_shape: _encoder(model, likelihood, out_shape),
        x_shape=x_shape,
        latent_dim=latent_dim,
    )
    networks = {type(likelihood).__name__: "vae.decoder", type(posterior).__name__: "vae.encoder"}
    with networks_named(likelihood="vae.decoder", posterior="vae.encoder", **networks):
        return VAE(prior, likelihood, posterior, missing=model.missing)


def _encoder(model: ModelSettings, likelihood: Likelihood, out_shape: torch.Size) -> nn.Module:
    """Return the encoder: its network, after the module that makes its input from x."""

    def network(in_shape: Shape) -> nn.Module:
        with shapes_named("vae.encoder"):
            return model.encoder(in_shape=in_shape, out_shape=out_shape)

    def with_mask(x_shape: Shape) -> nn.Module:
        return WithMask(network, x_shape)

    sees = model.encoder_sees or likelihood.encoder_input or Standardized
    encoder = sees(
        network=with_mask if model.encoder_sees_mask else network, x_shape=likelihood.x_shape
    )
    # `AsIs` changes nothing; without it the weights keep the names that stored runs use.
    return encoder.network if isinstance(encoder, AsIs) else encoder


def prepare(settings: Settings) -> tuple[VAE, sources.Splits]:
    """Return the VAE, with the new weights that the seed decides, and the data of a run."""
    check_settings(settings)
    splits = settings.data.load()
    return initialized(settings, splits), splits


def initialized(settings: Settings, splits: sources.Splits) -> VAE:
    """Return the VAE with the new weights that its seed decides.

    Parts of it are initialised from the training rows, as the settings say.
    """
    with stream(settings.training.seed, 0), made_from("vae"):
        vae = build_vae(settings.vae, splits.train.x_shape)
        num_columns = vae.num_columns(splits.train.labels)
        sources.warn_of_unused_labels(settings.data.source, splits.train, num_columns)
        initialize(vae, splits.train)
        if settings.vae.initialize_prior:
            index = torch.randperm(len(splits.train))[: vae.prior.num_initial_rows]
            vae.prior.initialize(splits.train.batch(index))
    if settings.vae.initialize_bias:
        vae.likelihood.initialize_bias(splits.train.mean())
    return vae


def check_settings(settings: Settings) -> None:
    """Refuse values that are wrong for any data. This reads no data.

    Raises:
        ValueError: if there is such a value; the first is named.
    """
    device(settings.device)
    with stream(0):
        with made_from("vae.prior"):
            settings.vae.prior(latent_dim=settings.vae.latent_dim)
        with made_from("training.optimizer"):
            optimizer = settings.training.optimizer([nn.Parameter(torch.zeros(1))])
        if settings.training.scheduler is not None:
            with made_from("training.scheduler"):
                settings.training.scheduler(optimizer)
        with made_from("logging.loggers"):
            settings.logging.logged(".", {})


@arguments_checked
def load(run: str | PathLike, weights: str = "best", allow: str | Sequence[str] = ()) -> VAE:
    """Load the VAE of a run folder, on the CPU and in evaluation mode.

    No code from the folder is run: see `pyro_vae.runs.trust`.

    Arguments:
        run: the folder.
        weights: `"best"` or `"last"`.
        allow: further packages whose classes the settings may name; a string names one.

    Raises:
        ValueError: if a file is missing, damaged, of a newer format, or names a class that is not
            allowed; or if weights are NaN or infinite.
    """
    folder = RunFolder(run)
    settings = load_settings(run, allow)
    x_shape = folder.info().x_shape
    failure = folder.failure()
    if failure is not None:
        warnings.warn(f"{folder.path} holds a run that failed: {failure}", stacklevel=3)
    with stream(0):  # the draw of weights that are replaced below spares the caller's random state
        vae = build_vae(settings.vae, x_shape)
    state = folder.weights(weights)
    try:
        vae.load_state_dict(state)
    except (AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{folder.path / weights}.pt must hold the weights of this VAE, but does not: "
            f"{state_difference(vae, state) or one_line(error)}"
        ) from error
    bad = not_finite(vae, state)
    if bad is not None:
        raise ValueError(
            f"{folder.path / weights}.pt must hold finite weights, got NaN or infinity in {bad}: "
            "the run failed."
        )
    return vae.eval()


@arguments_checked
def load_settings(run: str | PathLike, allow: str | Sequence[str] = ()) -> Settings:
    """Load the settings of a run folder.

    Arguments:
        run: the folder.
        allow: further packages whose classes the settings may name; a string names one.

    Raises:
        ValueError: if `load` refuses the settings.
    """
    parser = _plain_parser()
    namespace = parser.parse_object(RunFolder(run).settings(allow))
    return instantiate(parser, namespace, trusted_packages(allow))


@arguments_checked
def load_data(run: str | PathLike, allow: str | Sequence[str] = ()) -> sources.Splits:
    """Return the rows that a run was trained, validated and tested on.

    Arguments:
        run: the folder. A data file is also found if it has moved together with the folder.
        allow: further packages whose classes the settings may name; a string names one.

    Raises:
        ValueError: if the data have changed since the run, or `load` refuses the settings.
    """
    data = load_settings(run, allow).data
    rows = data.read()
    RunFolder(run).check_data(data.record(*rows))
    return data.split(*rows)


@arguments_checked
def rows_like(
    run: str | PathLike, data: str | PathLike | Data, allow: str | Sequence[str] = ()
) -> Rows:
    """Return new rows, prepared as the rows of a run are.

    They have the run's transform, and the highest level of its training data.

    Arguments:
        run: the folder.
        data: levels as they are stored, or a file or folder that `source_for` can read. Columns
            with names are found by those of the run.
        allow: further packages whose classes the settings may name; a string names one.

    Raises:
        ValueError: if rows have another shape than the run's. If a level exceeds the highest of the
            training data and the transform divides by it. If `load` refuses the settings.
    """
    settings = load_settings(run, allow)
    rows = _as_stored(data, settings.data.source, RunFolder(run))
    if not isinstance(rows.transform, transforms.Identity):
        raise ValueError(
            "'data' must hold levels as they are stored, "
            f"got rows with the transform {rows.transform!r}."
        )
    folder = RunFolder(run)
    x_shape = tuple(folder.info().x_shape)
    if tuple(rows.x_shape) != x_shape:
        raise ValueError(
            f"'data' must have rows of the shape {x_shape}, as the run, got {tuple(rows.x_shape)}."
        )
    levels = replace(rows, max_level=_max_level(folder, settings.data))
    return sources.transformed(levels, settings.data.transform, 2)


def _as_stored(data: str | PathLike | Data, source: sources.Source, folder: RunFolder) -> Rows:
    """Return rows as they are stored.

    A file is read with the settings of the run's source, if that reads files of the same kind.
    """
    if not isinstance(data, (str, PathLike)):
        return as_rows(data, missing="nan")
    record = folder.info().data
    known = None if record is None else record.names
    with argument_named("path", "data"):
        if isinstance(source, FileSource) and isinstance(source, reader_for(data)):
            return source.further(fspath(data), known)
        return _new_source(data, source).further(fspath(data), known)


def _new_source(data: str | PathLike, source: sources.Source) -> FileSource:
    """Return the source of a file of another kind than the run's; the channels lie as there."""
    kind = reader_for(data)
    if source.channels_last is None or "channels_last" not in signature(kind).parameters:
        return source_for(data)
    return source_for(data, channels_last=source.channels_last)


def _max_level(folder: RunFolder, data: DataSettings) -> float:
    """Return the highest level of a run's training data, which are read if there is no record."""
    stored = folder.info().data
    if stored is not None:
        return stored.max_level
    found = data.record(*data.read())
    folder.check_data(found)
    return found.max_level


def presets() -> dict[str, str]:
    """Return the names of the presets, each with a line that describes it."""
    found: dict[str, str] = {}
    for file in sorted(_PRESETS.iterdir(), key=lambda file: file.name):
        first_line = file.read_text(encoding="utf-8").partition("\n")[0]
        found[file.name.removesuffix(".yaml")] = first_line.removeprefix("# ").partition(";")[0]
    return found


def read_preset(preset: str, allow: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of a preset, and arguments for a parser with these defaults.

    For a YAML file these are the settings of the default preset, and `--config` with the file. For
    a file of a run folder they are its settings.

    Arguments:
        preset: the name of a preset, or a YAML file.
        allow: packages of the user's own that the settings of a run may name.

    Raises:
        ValueError: if there is no such preset and no such file.
    """
    names = sorted(presets())
    if preset in names:
        return _read_own(preset), []
    if not Path(preset).is_file():
        known = ", ".join(names)
        hint = nearest(preset, names)
        if Path(preset).is_dir() and preset:
            is_run = Path(preset, "run.json").is_file()
            hint = f": a run goes on by --resume --run {preset}" if is_run else ""
        elif Path(preset).suffix in (".yaml", ".yml"):
            hint = ", which does not exist"
        raise ValueError(
            f"'preset' must be one of {known}, or a YAML file, got {_received(preset)}{hint}."
        )
    check_kind(preset)
    stored = settings_of_run(preset, allow)
    if stored is not None:
        return stored, []
    settings_text(preset, "config")
    return _read_own(_DEFAULT_PRESET), ["--config", preset]


def _received(preset: str) -> str:
    """Return what was given in place of a preset, in words."""
    if not preset:
        return "an empty string"
    return f"the folder {preset}" if Path(preset).is_dir() else preset


def _read_own(preset: str) -> dict[str, Any]:
    return yaml.safe_load((_PRESETS / f"{preset}.yaml").read_text(encoding="utf-8"))


def settings_parser(
    defaults: dict[str, Any] | None = None,
    allow: Sequence[str] = (),
) -> "SentenceParser":
    """Return a parser for `Settings`; its option `--config` reads YAML.

    Arguments:
        defaults: default settings, as `read_preset` returns them; none by default.
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


@cache
def _plain_parser() -> "SentenceParser":
    """Return a parser without defaults, which takes a twentieth of a second to make."""
    return settings_parser()


def as_yaml(namespace: Any) -> str:
    """Return all settings that a parser has read as YAML, without its other arguments."""
    read = {name: namespace[name] for name in Settings.__dataclass_fields__}
    return _plain_parser().dump(Namespace(read), skip_unset=False)


def instantiate(
    parser: "SentenceParser",
    namespace: Any,
    packages: Sequence[str] | None = None,
) -> Settings:
    """Return the settings that a parser has read, without its other arguments.

    Arguments:
        parser: the parser.
        namespace: its result.
        packages: the packages that every class must come from; any by default.

    Raises:
        ValueError: if anything except a class of these packages would be called.
    """
    read = {name: namespace[name] for name in Settings.__dataclass_fields__}
    check_parsed(read, packages)
    with whole_names(read), class_named(read):
        fields = parser.instantiate(namespace)
        return Settings(**{name: fields[name] for name in read})
