"""The option `--seeds 1,2,3` of `pyro-vae train`: one run for each seed, and their spread."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from pyro_vae.commands.words import spelled_out
from pyro_vae.runs import read_metrics

# Seeds that torch takes.
_MOST = 2**63
_TITLES = {"negative_elbo": "-ELBO", "log_marginal": "log p(x)"}


def read_seeds(text: str, arguments: Sequence[str]) -> list[int]:
    """Return the seeds in a list such as `1,2,3`.

    Arguments:
        text: the list.
        arguments: the command line, which may not name another seed.

    Raises:
        ValueError: if it is no list of two or more different seeds, or there is a seed beside it.
    """
    words = [word.strip() for word in text.split(",")]
    numbers = [int(word) for word in words if word.isascii() and word.isdecimal()]
    seeds = [number for number in numbers if number < _MOST]
    if len(seeds) < max(len(words), 2):
        raise ValueError(
            f"'seeds' must be two or more whole numbers such as 1,2,3, got {text or 'nothing'}."
        )
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise ValueError(f"'seeds' must be different numbers, got {twice} twice.")
    options = [argument.partition("=")[0] for argument in spelled_out(arguments)]
    if "--training.seed" in options:
        raise ValueError("'seeds' trains with several seeds and 'seed' with one: name one.")
    return seeds


def summary(folders: Sequence[Path]) -> str:
    """Return mean and standard deviation over runs of −ELBO and log p(x), in a line."""
    metrics = [read_metrics(folder) for folder in folders]
    parts: list[str] = []
    for name, title in _TITLES.items():
        means = [found.mean for run in metrics if (found := run[name]) is not None]
        if len(means) == len(folders):
            parts.append(f"{title} {mean(means):.4f} ± {stdev(means):.4f}")
    return (
        f"Mean ± standard deviation over {len(folders)} seeds, in nats per row: {', '.join(parts)}."
    )
