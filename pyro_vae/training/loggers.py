"""Loggers: numbers and figures of each epoch, for TensorBoard and the like."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from os import PathLike
from typing import Any, Protocol, TypeAlias, runtime_checkable

from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import described, whole
from pyro_vae.training.history import Epoch, Fit


@runtime_checkable
class Logger(Protocol):
    """Place for the numbers and figures of training; a class with these methods is one."""

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Take the numbers of an epoch by their names."""

    def figure(self, name: str, figure: Any, step: int) -> None:
        """Take a matplotlib figure of an epoch."""

    def close(self) -> None:
        """Finish writing. A run that is resumed may go on afterwards."""


class LoggerFactory(Protocol):
    """A Logger class that still needs the folder that it writes to."""

    def __call__(self, *, folder: str) -> Logger: ...


# A function that draws a matplotlib figure.
Drawing: TypeAlias = Callable[[], Any]


class TensorBoard(Logger):
    """Logger that writes files for TensorBoard.

    The folder is made with the first numbers. `tensorboard --logdir FOLDER` shows it.

    Arguments:
        folder: the folder; a run's own when it is named in settings.

    Raises:
        ValueError: if the package `tensorboard` is not installed.

    Example:
        >>> from pyro_vae.training import logged
        >>> def report(folder):
        ...     return logged(TensorBoard(folder))  # for `on_epoch` of `fit`
    """

    @arguments_checked
    def __init__(self, folder: str | PathLike) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise ValueError(
                "TensorBoard needs the package tensorboard, which is not installed: "
                "pip install 'pyro_vae[tensorboard]'."
            ) from None
        self.folder = folder
        self._open = SummaryWriter
        self._writer: Any = None

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Write one point of a curve for each number."""
        for name, value in values.items():
            self._opened().add_scalar(name, value, step)

    def figure(self, name: str, figure: Any, step: int) -> None:
        """Write a figure as a picture."""
        self._opened().add_figure(name, figure, step, close=False)

    def close(self) -> None:
        """Write what is left, and close the file; later numbers go to a new file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _opened(self) -> Any:
        if self._writer is None:
            self._writer = self._open(str(self.folder))
        return self._writer


@arguments_checked
def logged(
    *loggers: Logger, figures: Mapping[str, Drawing] | None = None, every: int = 5
) -> "Logged":
    """Return a function for `on_epoch` of `fit` that passes each epoch on to loggers.

    The loggers get the losses, the learning rate, the scheduled number, the seconds, and rate and
    distortion of validation and test rows. `fit` closes them when it ends, also by an error or
    Ctrl-C.

    Arguments:
        loggers: the loggers.
        figures: functions that draw figures, by the names of the figures.
        every: the number of epochs from one drawing of the figures to the next.

    Raises:
        ValueError: if a logger lacks a method, or `every` is no whole number of at least 1.
    """
    whole(every, "every")
    for logger in loggers:
        if isinstance(logger, type) or not isinstance(logger, Logger):
            raise ValueError(
                "'loggers' must have the methods scalars, figure and close, got "
                f"{described(logger)}."
            )
    return Logged(loggers, figures or {}, every)


class Logged:
    """Function for `on_epoch` of `fit`, made by `logged`."""

    def __init__(
        self, loggers: tuple[Logger, ...], figures: Mapping[str, Drawing], every: int
    ) -> None:
        self.loggers = loggers
        self.figures = figures
        self.every = every
        self._seen: int | None = None

    def __call__(self, reached: Fit) -> None:
        """Pass on the last epoch, unless it is from before this call of `fit`."""
        number = len(reached.history)
        is_new = self._seen is not None and number > self._seen
        self._seen = number
        if not is_new:
            return
        values = _numbers(reached.history[-1])
        for logger in self.loggers:
            logger.scalars(dict(values), number)
        if number % self.every == 0:
            self._draw(number)

    def close(self) -> None:
        """Close each logger, even if another one fails to close."""
        self._seen = None
        with ExitStack() as stack:
            for logger in self.loggers:
                stack.callback(logger.close)

    def _draw(self, number: int) -> None:
        for name, draw in self.figures.items():
            figure = draw()
            for logger in self.loggers:
                logger.figure(name, figure, number)


def _numbers(row: Epoch) -> dict[str, float]:
    """Return the known numbers of an epoch, with the distortion of validation and test rows."""
    values = row._asdict()
    del values["epoch"]
    for part in ("validation", "test"):
        loss = values[f"{part}_loss"]
        rate = values[f"{part}_rate"]
        values[f"{part}_distortion"] = None if rate is None else loss - rate
    return {name: value for name, value in values.items() if value is not None}
