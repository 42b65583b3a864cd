"""The best model of some rows without z, a baseline for a VAE."""

import copy
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor, nn

from pyro_vae.vae import VAE

# Rows for the fit, enough that log p of the other rows is close to the best one.
NUM_ROWS = 500
# Most steps of the fit.
_NUM_STEPS = 30


class _Constant(nn.Module):
    """Constant outputs in place of a network's."""

    def __init__(self, out_shape: torch.Size) -> None:
        super().__init__()
        self.output_bias = nn.Parameter(torch.zeros(out_shape))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output_bias.expand(len(inputs), *self.output_bias.shape)


def fit_without_latent(vae: VAE, x: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return log p(x) of rows, `(B,)`, under the best model in which x does not depend on z.

    The model is the VAE's likelihood with constants in place of the network's outputs. The
    constants, and the scale if it is learned, are fitted by maximum likelihood.

    Arguments:
        vae: the VAE, which is not changed.
        x: the rows to fit, `(N, *x_shape)`.

    Returns:
        The function; None if the likelihood takes a context, or if no finite fit is found.
    """
    if vae.likelihood.context_dim:
        return None
    constant = _with_constants(vae, x)

    def log_prob(x: Tensor) -> Tensor:
        return constant.log_likelihood(x, x.new_zeros(len(x), vae.latent_dim))

    try:
        with torch.enable_grad():
            _maximise(constant.likelihood, lambda: log_prob(x).mean() / x[0].numel())
        constant.likelihood.requires_grad_(False)
        is_finite = bool(log_prob(x).isfinite().all())
    # Torch raises these if a step makes a distribution's parameters or the loss NaN.
    except (IndexError, ValueError):
        return None
    return log_prob if is_finite else None


def _with_constants(vae: VAE, x: Tensor) -> VAE:
    """Return a copy whose likelihood has constants in place of its network.

    The constants start at the mean of the rows, if the likelihood has a link. Prior and posterior
    are shared with the VAE.
    """
    constant = _Constant(vae.likelihood.out_shape).to(x)
    shared = {id(part): part for part in (vae.prior, vae.posterior)}
    vae = copy.deepcopy(vae, {id(vae.likelihood.network): constant, **shared})
    vae.likelihood.requires_grad_(True)
    with suppress(ValueError):  # a custom likelihood without a link starts at zeros
        vae.likelihood.initialize_bias(x.nanmean(0).nan_to_num(0.0))
    return vae


def _maximise(likelihood: nn.Module, objective: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.LBFGS(
        likelihood.parameters(), max_iter=_NUM_STEPS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -objective()
        loss.backward()
        return loss

    if objective().requires_grad:  # a likelihood may have nothing to fit
        optimizer.step(closure)
