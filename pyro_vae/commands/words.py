"""Common words of the command line, and the settings that they set."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Word(NamedTuple):
    """A word that stands for a setting.

    Arguments:
        setting: the setting.
        meaning: what it is, in words.
    """

    setting: str
    meaning: str


WORDS = {
    "epochs": Word("training.epochs", "passes over the training rows"),
    "batch_size": Word("training.batches.size", "rows of a step"),
    "lr": Word("training.optimizer.lr", "the learning rate"),
    "seed": Word("training.seed", "the seed of the weights, the batches and the draws"),
    "latent_dim": Word("vae.latent_dim", "the number of latent dimensions"),
    "prior": Word("vae.prior", "p(z), such as VampPrior"),
    "likelihood": Word("vae.likelihood", "p(x | z), such as NormalLikelihood"),
    "posterior": Word("vae.posterior", "q(z | x), such as FlowPosterior"),
}


def spelled_out(arguments: Iterable[str]) -> Iterator[str]:
    """Yield the arguments with settings in place of the words that stand for them.

    A word may go on behind a dot: `--likelihood.total_count` is that argument of the likelihood.
    """
    for argument in arguments:
        option, equals, value = argument.partition("=")
        name, dot, rest = option.removeprefix("--").partition(".")
        is_word = option.startswith("--") and name in WORDS
        yield f"--{WORDS[name].setting}{dot}{rest}{equals}{value}" if is_word else argument
