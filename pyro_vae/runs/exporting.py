"""Export of encoder and decoder, to be used where this package is not installed."""

import copy
import io
import warnings
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pyro_vae.parts.missing_entries import entries_of
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import one_line
from pyro_vae.support.files import writable_folder, write_atomically
from pyro_vae.support.modules import tensor_like
from pyro_vae.support.streams import stream
from pyro_vae.support.validation import validating
from pyro_vae.vae import VAE

# Rows of the examples that are traced; torch takes 0 and 1 for sizes that never change.
_ROWS = 3
# Largest difference from the VAE's own numbers, relative and absolute, by the parameters' dtype.
_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


class Exported(NamedTuple):
    """Files that `export` has written.

    Arguments:
        encoder: maps x, and y for a VAE whose posterior takes a context, to the pair of mean and
            scale of q(z | x), each `(B, D)`.
        decoder: maps z, and y for a VAE whose likelihood takes a context, to E[x | z],
            `(B, *x_shape)`.
    """

    encoder: Path
    decoder: Path


@arguments_checked
def export(vae: VAE, folder: str | PathLike) -> Exported:
    """Write encoder and decoder as files that torch alone can run, for any number of rows.

    They are graphs of `torch.export`: `torch.export.load(file).module()(x)` calls one. They take
    tensors of the VAE's dtype, and a context y as vectors, `(B, Y)`; they check nothing. Networks
    are in evaluation mode.

    Arguments:
        vae: the VAE, which is not changed.
        folder: the folder of `encoder.pt2` and `decoder.pt2`; it is made, and older files of these
            names are replaced.

    Raises:
        ValueError: if q(z | x) or p(x | z) has no mean in closed form, a network cannot be traced
            for any number of rows, or the folder cannot be written. Nothing is written then.
    """
    place = writable_folder(str(folder), "folder")
    still = copy.deepcopy(vae).cpu().eval().requires_grad_(False)
    z, y = _example(still, _ROWS)
    x = z.new_zeros(_ROWS, *still.x_shape)
    programs = {
        "encoder": _exported("encoder", _Encoder(still), x, y),
        "decoder": _exported("decoder", _Decoder(still), z, y),
    }
    place.mkdir(parents=True, exist_ok=True)
    files = {name: place / f"{name}.pt2" for name in programs}
    for name, program in programs.items():
        _write(files[name], program)
    return Exported(**files)


class _Encoder(nn.Module):
    """Mean and scale of q(z | x)."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.posterior = vae.posterior
        self.entries = entries_of(vae.missing)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q_z = self.posterior(self.entries.seen(x, self.posterior), y)
        return q_z.mean, q_z.stddev


class _Decoder(nn.Module):
    """E[x | z]."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.likelihood = vae.likelihood

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood(z, y).mean


def _exported(name: str, module: nn.Module, *inputs: Tensor | None) -> ExportedProgram:
    """Return the graph of a module, if it gives the module's own numbers for any number of rows.

    Raises:
        ValueError: if the module cannot be traced, or the graph gives other numbers.
    """
    given = tuple(part for part in inputs if part is not None)
    rows = Dim("rows")
    shapes = tuple({0: rows} for _ in given)
    try:
        # Not under no_grad: lazy properties of distributions would leave it inside the graph.
        with validating(False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, given, dynamic_shapes=shapes, strict=False)
    except NotImplementedError as error:
        part = next(iter(module.children()))
        raise ValueError(
            f"'vae' must have a mean and a scale in closed form to be exported, but that of "
            f"{type(part).__name__} has none."
        ) from error
    except Exception as error:
        raise ValueError(
            f"'vae' must have networks that can be traced for any number of rows, but its {name} "
            f"cannot: {_first_line(error)}"
        ) from error
    return program


def _first_line(error: Exception) -> str:
    return one_line(next(iter(str(error).splitlines()), type(error).__name__))


def _example(vae: VAE, num_rows: int) -> tuple[Tensor, Tensor | None]:
    """Return draws of z from the prior, and a context of zeros for a VAE that takes one."""
    y = tensor_like(vae).new_zeros(num_rows, vae.context_dim) if vae.context_dim else None
    with stream(0), torch.no_grad():
        return vae.prior(y).expand(torch.Size([num_rows])).sample(), y


def _write(file: Path, program: ExportedProgram) -> None:
    content = io.BytesIO()
    torch.export.save(program, content)
    write_atomically(file, lambda opened: opened.write(content.getbuffer()))
