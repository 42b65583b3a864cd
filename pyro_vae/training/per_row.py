"""Mean over rows of an objective, for rows whose x is made inside the step."""

from collections.abc import Callable
from typing import Any

from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor

from pyro_vae.inference.surrogates import WrappedELBO, checked_loss, loss_and_surrogate
from pyro_vae.support.arguments import arguments_checked


@arguments_checked
class PerRow(WrappedELBO):
    """Mean over rows of a Pyro objective, for rows whose x is made inside the step.

    The value is that of the objective, summed over rows. The gradient is that of the mean, so a
    learning rate has the same meaning for any batch size.

    The first argument of a step holds the rows. Model and guide receive x in its place.

    Arguments:
        objective: the objective, a Pyro ELBO.
        transform: makes x from the rows, such as a binarisation drawn anew in each step; by
            default the rows are x.

    Raises:
        ValueError: if the first argument of a step is not given by position.

    Example:
        >>> from pyro_vae.training import PerRow
        >>> loss = PerRow(Trace_ELBO(), torch.bernoulli)
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), loss)
        >>> svi.step(torch.rand(5, 1, 4, 4)) > 0
        tensor(True)
    """

    def __init__(
        self, objective: ELBO, transform: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(objective, calls=() if transform is None else (transform,))
        self.transform = transform

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss in nats, summed over rows; its gradient is that of the mean over rows."""
        x, *others = self._with_x(args)
        loss = self.objective.differentiable_loss(model, guide, x, *others, **kwargs)
        loss = checked_loss(self.objective, loss)
        if loss.requires_grad:
            loss.register_hook(lambda gradient: gradient / len(x))
        return loss

    def loss_and_surrogate(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        x, *others = self._with_x(args)
        loss, surrogate = loss_and_surrogate(self.objective, model, guide, x, *others, **kwargs)
        return loss, surrogate / len(x)

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Return the loss in nats, summed over rows."""
        return self.objective.loss(model, guide, *self._with_x(args), **kwargs)

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Return the loss as `loss` does, with the gradients of the mean over rows in `.grad`.

        As in a step of Pyro, `.grad` must hold no other gradients before.
        """
        x, *others = self._with_x(args)
        with poutine.trace(param_only=True) as capture:
            loss = self.objective.loss_and_grads(model, guide, x, *others, **kwargs)
        sites: dict[str, Any] = capture.trace.nodes
        parameters = dict.fromkeys(site["value"].unconstrained() for site in sites.values())
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = parameter.grad / len(x)
        return loss

    def _guess_max_plate_nesting(
        self, model: Callable, guide: Callable, args: Any, kwargs: Any
    ) -> None:
        self.objective._guess_max_plate_nesting(model, guide, self._with_x(args), kwargs)

    def _with_x(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments of a step with x in place of the rows."""
        if not args:
            raise ValueError("'rows' must be the first argument of a step by position, got none.")
        return args if self.transform is None else (self.transform(args[0]), *args[1:])
