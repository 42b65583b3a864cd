"""Parameter groups of an optimiser that a function makes, as its parameters change.

Parameters may appear, thaw or be replaced during training.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer, SparseAdam
from torch.utils.weak import WeakTensorKeyDictionary

from pyro_vae.support.checks import described, one_line


class GrowingGroups:
    """An optimiser that a function makes, and that takes in later parameters.

    A new parameter joins the group with the settings that the function gave to it. So it follows
    later changes of these settings, such as those of a schedule. Without such a group it brings its
    own.

    A parameter with the name of another one takes its place. A replaced parameter that comes back
    gets its state back, as long as somebody has kept a reference to it.

    Arguments:
        make: a function from parameters to an optimiser.
    """

    def __init__(self, make: Callable[[Iterable[nn.Parameter]], Optimizer]) -> None:
        self.make = make
        self.optimizer: Optimizer | None = None
        self._named: dict[str, Tensor] = {}
        self._settings: dict[int, dict[str, Any]] = {}
        self._left: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def follow(self, named: Mapping[str, Tensor]) -> Optimizer | None:
        """Take in the current parameters, and return the optimiser; None without any parameter.

        Arguments:
            named: the current parameters by name.

        Raises:
            ValueError: if the function does not return an optimiser that takes one gradient a step.
        """
        new = {
            name: tensor for name, tensor in named.items() if self._named.get(name) is not tensor
        }
        if new:
            made = self._made(list(dict.fromkeys(named.values())))
            if self.optimizer is None:
                self.optimizer = made
                self._settings = {
                    place: _settings(group) for place, group in enumerate(made.param_groups)
                }
            else:
                replaced = [
                    (self._named[name], tensor)
                    for name, tensor in new.items()
                    if name in self._named
                ]
                self._replace(self.optimizer, made, replaced)
                self._join(self.optimizer, made)
            self._named |= named
        return self.optimizer

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_left": list(self._left.items())}  # weak references have no pickle

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._left = WeakTensorKeyDictionary(state["_left"])

    def _made(self, parameters: list[Any]) -> Optimizer:
        try:
            made = self.make(parameters)
        except (TypeError, ValueError, AssertionError) as error:
            raise ValueError(
                f"'optim' must make an optimiser from the parameters, but fails: {one_line(error)}"
            ) from error
        check_optimizer(made)
        return made

    def _replace(
        self, optimizer: Optimizer, made: Optimizer, pairs: list[tuple[Tensor, Tensor]]
    ) -> None:
        for old, new in pairs:
            for group in optimizer.param_groups:
                parameters = enumerate(group["params"])
                places = [place for place, parameter in parameters if parameter is old]
                if places:
                    self._left[old] = optimizer.state.pop(old, {})
                    is_wanted = _holds(made, new) and not _holds(optimizer, new)
                    group["params"][places[0] : places[0] + 1] = [new] if is_wanted else []
                    if is_wanted:
                        self._give_state(optimizer, made, new)

    def _join(self, optimizer: Optimizer, made: Optimizer) -> None:
        for group in made.param_groups:
            new = [parameter for parameter in group["params"] if not _holds(optimizer, parameter)]
            if not new:
                continue
            settings = _settings(group)
            places = [place for place, known in self._settings.items() if known == settings]
            if places:
                optimizer.param_groups[places[0]]["params"].extend(new)
            else:
                self._settings[len(optimizer.param_groups)] = settings
                optimizer.add_param_group({**settings, "params": new})
            for parameter in new:
                self._give_state(optimizer, made, parameter)

    def _give_state(self, optimizer: Optimizer, made: Optimizer, parameter: Tensor) -> None:
        """Restore the kept state of a parameter, or set the first state of its optimiser."""
        state = self._left.pop(parameter, None) or made.state.get(parameter)
        if state:
            optimizer.state[parameter] = state


def check_optimizer(optimizer: Any) -> None:
    """Refuse an object that is no torch optimiser, or does not take one dense gradient a step.

    Raises:
        ValueError: if it is such an object.
    """
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"'optim' must return a torch optimiser, got {described(optimizer)}.")
    if isinstance(optimizer, LBFGS):
        raise ValueError(
            "'optim' must take one gradient a step, got LBFGS, which evaluates the loss many times."
        )
    if isinstance(optimizer, SparseAdam):
        raise ValueError("'optim' must take dense gradients, got SparseAdam: use Adam.")
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(parameter.is_inference() for parameter in held):
        raise ValueError(
            "'optim' must hold parameters that allow gradients, got some made under "
            "torch.inference_mode(): make them outside."
        )


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({name: value for name, value in group.items() if name != "params"})


def _holds(optimizer: Optimizer, parameter: Tensor) -> bool:
    return any(parameter is held for group in optimizer.param_groups for held in group["params"])
