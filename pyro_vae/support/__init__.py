"""Checks of arguments, modes of modules, named random streams, and Pyro's param store."""

# Before any module that imports Pyro, whose own import of tqdm.auto would warn in some notebooks.
from pyro_vae.support.progress import progress_bar, progress_shown

# isort: split
from pyro_vae.support.checks import Shape, as_shape, nearest, one_line
from pyro_vae.support.modules import evaluating, modes_restored, tensor_like
from pyro_vae.support.store import store_as_found
from pyro_vae.support.streams import stream, stream_seed

__all__ = [
    "Shape",
    "as_shape",
    "evaluating",
    "modes_restored",
    "nearest",
    "one_line",
    "progress_bar",
    "progress_shown",
    "store_as_found",
    "stream",
    "stream_seed",
    "tensor_like",
]
