"""Inference gap log p(x) − ELBO in two parts: the cost of q's family and of amortisation."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_vae.data.arrays import as_tensor
from pyro_vae.data.rows import as_x
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import not_negative, whole
from pyro_vae.support.modules import evaluating, tensor_like
from pyro_vae.support.progress import tracked
from pyro_vae.support.streams import stream
from pyro_vae.support.tables import shown_in_short
from pyro_vae.vae import VAE

# Draws of z for each row in the final comparison of the two ELBOs.
_FINAL_SAMPLES = 1_000
# Draws that pass through the networks at once, to bound the memory.
_CHUNK = 50


@shown_in_short
class Gaps(NamedTuple):
    """Inference gap of each row in nats, `(B,)`: log p(x) − ELBO = approximation + amortisation.

    Arguments:
        approximation: log p(x) − ELBO at the best q of the family for this row.
        amortisation: ELBO of the row's best q minus ELBO of the network's q.
        elbo: ELBO of the network's q(z | x).
        local_elbo: ELBO of the row's best q.
    """

    approximation: Tensor
    amortisation: Tensor
    elbo: Tensor
    local_elbo: Tensor


class _RowOutputs(nn.Module):
    """Free outputs for given rows, in place of a network."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.Parameter(outputs)

    def forward(self, rows: Tensor) -> Tensor:
        return self.outputs


@arguments_checked
def inference_gaps(
    vae: VAE,
    x: Tensor,
    y: Tensor | None = None,
    *,
    log_marginal: Tensor,
    num_steps: int = 500,
    learning_rate: float = 0.02,
    num_samples: int = 8,
) -> Gaps:
    """Split log p(x) − ELBO into the approximation and the amortisation gap.

    The network's outputs for a row become parameters and are optimised for this row alone. They
    start at the network's values. Parameters that rows share, such as the weights of a flow, stay
    fixed. If log p(x) is a lower bound, so is the approximation gap. The amortisation gap does not
    depend on it. An optimiser with too few steps underestimates it, above all for posteriors with
    correlations.

    References:
        Inference suboptimality in variational autoencoders, Cremer, Li and Duvenaud, 2018.

    Arguments:
        vae: the VAE, which is not changed.
        x: rows, `(B, *x_shape)`; draws of z come from torch's default generator.
        y: the context of each row, `(B, Y)`.
        log_marginal: log p(x) of each row, `(B,)`, for instance `sandwich(...).lower`.
        num_steps: the number of steps of Adam, whose learning rate falls to 0.
        learning_rate: the learning rate at the beginning, in units of the network's outputs.
        num_samples: the number of draws of z for each row in a step.

    Raises:
        ValueError: if the posterior has no `rsample`, or does not call its network exactly once; if
            a count is too small, or `log_marginal` has another number of rows.

    Example:
        >>> from pyro_vae.diagnostics import inference_gaps
        >>> x = vae.sample(3)
        >>> log_marginal = vae.elbo(x).detach()
        >>> inference_gaps(vae, x, log_marginal=log_marginal, num_steps=2).amortisation.shape
        torch.Size([3])
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "'inference_gaps' must be called with gradients, got a call under "
            "torch.inference_mode()."
        )
    whole(num_steps, "num_steps")
    whole(num_samples, "num_samples")
    reference = tensor_like(vae)
    x = as_x(x, reference)
    y = vae.read_context(y)
    log_marginal = as_tensor(log_marginal, "log_marginal").to(x.device)
    not_negative(learning_rate, "learning_rate")
    if log_marginal.shape != x.shape[:1]:
        raise ValueError(
            f"'log_marginal' must have the shape ({len(x)},), got {tuple(log_marginal.shape)}."
        )
    local = with_free_outputs(vae, x, y)
    with torch.enable_grad():
        _optimise(local, x, y, num_steps, learning_rate, num_samples)
    with evaluating(vae):
        elbo = _elbo(vae, x, y)
        local_elbo = _elbo(local, x, y)
    return Gaps(log_marginal.to(local_elbo) - local_elbo, local_elbo - elbo, elbo, local_elbo)


def with_free_outputs(vae: VAE, x: Tensor, y: Tensor | None) -> VAE:
    """Return a frozen copy of the VAE in which the network's outputs for these rows are free.

    The outputs are parameters in place of the posterior's network. A prior that shares the
    posterior (a VampPrior) keeps the network.

    Raises:
        ValueError: if the posterior has no `rsample`, or does not call its network exactly once.
    """
    local = copy.deepcopy(vae).requires_grad_(False).eval()
    posterior = copy.deepcopy(local.posterior)
    outputs: list[Tensor] = []
    handle = local.posterior.network.register_forward_hook(
        lambda network, inputs, output: outputs.append(output)
    )
    q_z = local.encode(x, y)
    handle.remove()
    if not q_z.has_rsample or len(outputs) != 1:
        raise ValueError(
            "'vae' must have a posterior with rsample that calls its network once, got "
            f"{type(vae.posterior).__name__}."
        )
    posterior.network = _RowOutputs(outputs[0])
    local.posterior = posterior
    return local


def _optimise(
    local: VAE, x: Tensor, y: Tensor | None, num_steps: int, learning_rate: float, num_samples: int
) -> None:
    optimizer = torch.optim.Adam(local.posterior.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in tracked(range(num_steps), "gaps"):
        optimizer.zero_grad()
        loss = -local.elbo(x, y, num_samples=num_samples).sum()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _elbo(vae: VAE, x: Tensor, y: Tensor | None) -> Tensor:
    num_chunks = _FINAL_SAMPLES // _CHUNK
    with stream(0, device=x.device):  # the same noise for both VAEs reduces that of the difference
        parts = [vae.elbo(x, y, num_samples=_CHUNK).double() for _ in range(num_chunks)]
    return torch.stack(parts).mean(0)
