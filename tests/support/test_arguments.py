import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyro_vae import ConstantKL, Shuffled, Training, diagnostics, evaluation, figures, objectives
from pyro_vae import training as training_room
from pyro_vae.data import Batches
from pyro_vae.support.arguments import arguments_checked


def taking(hint):
    def function(setting):
        return setting

    function.__annotations__["setting"] = hint
    return arguments_checked(function)


def one(first):
    return first


def two(first, second):
    return first, second


ACCEPTED = {
    int: [0, -3, np.int64(3), np.uint8(3), np.prod((2, 3))],
    float: [0.5, 2, np.float32(0.5), np.int64(3), torch.tensor(0.5), float("inf")],
    bool: [True, False, np.True_],
    str: ["", "text", np.str_("text")],
    int | None: [3, None],
    Literal["auto", True]: ["auto", True],
    Tensor: [torch.zeros(3), nn.Parameter(torch.zeros(3))],
    Batches: [Shuffled(3)],
    Callable: [print, one, len],
    Callable[..., Tensor]: [two, partial(two, 1)],
    Callable[[int], Tensor]: [one, partial(two, 1), partial(two, second=1), abs, nn.ReLU(), dict],
    Mapping[str, float]: [{}, {"a": 1}],
    dict[str, Tensor]: [{}],
    Sequence[float]: [[], (1, 2.0), range(3), np.ones(3), torch.ones(3)],
    Sequence[Tensor]: [[torch.ones(2)], (torch.ones(2), torch.ones(3))],
    Sequence[str]: [["a"], "abc"],
    Collection[int]: [{1, 2}, range(3), frozenset()],
    tuple[int, int]: [(1, 2), [1, 2]],
    tuple[int, ...]: [(), (1, 2, 3)],
    Tensor | np.ndarray: [torch.zeros(3), [1, 2], "anything that the reader of arrays may take"],
    "float": [1.0],
}
REFUSED = [
    (int, True, "a whole number, got True"),
    (int, 2.5, "a whole number, got 2.5"),
    (int, "10", "a whole number, got '10'"),
    (int, np.float64(2), "a whole number, got 2.0"),
    (int, np.True_, "a whole number, got True"),
    (int, None, "a whole number, got None"),
    (int, [3], "a whole number, got [3]"),
    (int, torch.tensor([3, 4]), "a whole number, got tensor([3, 4])"),
    (int, "9" * 1000, "a whole number, got '" + "9" * 59 + "…"),
    (float, True, "a number, got True"),
    (float, "0.5", "a number, got '0.5'"),
    (float, 1j, "a number, got 1j"),
    (float, torch.ones(5), "a number, got a tensor of the shape (5,)"),
    (float, torch.tensor(True), "a number, got tensor(True)"),
    (float | None, "1", "a number or None, got '1'"),
    (bool, 1, "True or False, got 1"),
    (str, 3, "a string, got 3"),
    (Literal["auto", True], 1, "'auto' or True, got 1"),
    (Literal["auto", True], [], "'auto' or True, got []"),
    (Tensor, np.ones((2, 3)), "a tensor, got an array of the shape (2, 3)"),
    (Batches, 64, "a Batches, such as Shuffled or WithReplacement, got 64"),
    (Batches, Shuffled, "got the class Shuffled, which must be called"),
    (nn.Module, print, "a Module, got the function print"),
    (Callable, 3, "a function, got 3"),
    (Callable[[int], Tensor], "f", "a function of 1 argument that returns a tensor, got 'f'"),
    (Callable[[int], None], two, "got the function two (missing a required argument: 'second')"),
    (Callable[[int, int], None], one, "2 arguments, got the function one (too many positional"),
    (Mapping[str, float], [1], "a dict with values, each a number, got [1]"),
    (Mapping[str, float], {"a": "b"}, "a dict with values, each a number, got {'a': 'b'}"),
    (Sequence[float], 3.0, "a sequence of values, each a number, got 3.0"),
    (Sequence[float], torch.tensor(1.0), "each a number, got tensor(1.)"),
    (Sequence[float], "12", "each a number, got '12'"),
    (Sequence[float], {1: 2}, "each a number, got {1: 2}"),
    (Sequence[float], [1, None, "a"], "each a number, got a list with None"),
    (Sequence[Tensor], torch.ones(9, 2), "each a tensor, got a tensor of the shape (9, 2)"),
    (Sequence[Tensor], [np.ones(3)], "got a list with array([1., 1., 1.])"),
    (tuple[int, int], (1, 2, 3), "a sequence of 2 values, each a whole number, got a tuple of 3"),
    (
        tuple[int, int],
        (1, "2"),
        "a sequence of 2 values, each a whole number, got a tuple with '2'",
    ),
]


@pytest.mark.parametrize("hint", ACCEPTED, ids=str)
def test_values_of_the_annotated_type_reach_the_function(hint):
    for value in ACCEPTED[hint]:
        assert taking(hint)(value) is value


@pytest.mark.parametrize(("hint", "value", "sentence"), REFUSED)
def test_other_values_are_refused_in_one_sentence(hint, value, sentence):
    with pytest.raises(ValueError, match=f"^'setting' must be .*{re.escape(sentence)}") as caught:
        taking(hint)(value)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 200


CALLS = {
    "'second' is no argument of call, which takes first and by name third.": lambda call: call(
        1, second=2
    ),
    "call takes first and by name third, but the call does not fit: missing a required "
    "argument: 'first'.": lambda call: call(),
    "call takes first and by name third, but the call does not fit: too many positional "
    "arguments.": lambda call: call(1, 2),
}


@pytest.mark.parametrize("sentence", CALLS)
def test_unknown_and_missing_arguments_are_named_with_those_that_exist(sentence):
    @arguments_checked
    def call(first: int, *, third: int = 3) -> None:
        raise AssertionError("work was done")

    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        CALLS[sentence](call)


def test_a_class_names_itself_and_subclasses_name_themselves():
    with pytest.raises(TypeError, match="'epoch' is no argument of Training, which takes epochs, "):
        Training(epoch=3)

    class Mine(ConstantKL):
        pass

    with pytest.raises(ValueError, match="^'weight' of Mine must be a number, got None"):
        Mine(None)


def test_the_signature_and_the_help_stay():
    assert "epochs" in inspect.signature(Training).parameters
    assert training_room.fit.__doc__.startswith("Train a VAE in place.")
    assert list(inspect.signature(training_room.fit).parameters)[:3] == ["vae", "data", "training"]


ROOMS = [training_room, objectives, evaluation, diagnostics, figures]
# A protocol, an error that the package raises, and what is called in each step.
UNCHECKED = ("Logger", "NonFiniteLossError", "scheduled_by")


def is_checked(function):
    is_record = hasattr(function, "_fields")  # made by the package
    return callable(function) and not is_record and not inspect.isabstract(function)


PUBLIC = [
    pytest.param(getattr(room, name), id=f"{room.__name__}.{name}")
    for room in ROOMS
    for name in room.__all__
    if name not in UNCHECKED and is_checked(getattr(room, name))
]


@pytest.mark.parametrize("function", PUBLIC)
def test_every_public_function_refuses_what_is_nothing_of_the_kind(function):
    """The first annotated argument that an object cannot be is named."""
    parameters = inspect.signature(function).parameters.values()
    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [each.name for each in parameters if each.kind not in many]
    with pytest.raises(
        ValueError, match=f"^'({'|'.join(names)})'.* must be .*, got an object"
    ) as e:
        function(**dict.fromkeys(names, object()))
    assert "\n" not in str(e.value)
