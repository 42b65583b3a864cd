"""Settings that a program reads from containers: each change of one gives what the program gives, and is replayed again."""

import argparse
import types
from collections import OrderedDict, UserDict, defaultdict, deque
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from pyro_vae.engine import Program
from pyro_vae.engine.containers import Containers

X = torch.linspace(-1, 1, 6)
SETTINGS = {"beta": 1.0}
HIDDEN = types.ModuleType("my_settings")
HIDDEN.beta = 1.0


@dataclass
class Config:
    beta: float = 1.0
    inner: dict = field(default_factory=lambda: {"list": [1.0]})

    def weight(self):
        return self.beta


class Slots:
    __slots__ = ("beta",)

    def __init__(self):
        self.beta = 1.0


class Plain:
    shared = 1.0

    def __init__(self):
        self.beta = 1.0

    @property
    def weight(self):
        return self.beta


class Dynamic:
    def __init__(self):
        self.__dict__["fields"] = {"beta": 1.0}

    def __getattr__(self, name):
        return self.__dict__["fields"][name]


class Point(NamedTuple):
    betas: list


class Owner:
    def __init__(self):
        self.config, self.losses, self.step = Config(), [], 0

    def model(self, x):
        return (x * self.config.inner["list"][0],)


class Net(nn.Module):
    beta = 1.0

    def __init__(self):
        super().__init__()
        self.config = {"beta": 1.0}

    def forward(self, x):
        return x * self.beta * self.config["beta"]


def closed_over(settings, read):
    return lambda x: (x * read(settings),)


def case(settings, read, change):
    """A program that multiplies by what it reads in settings, and a change of that to 2."""
    return closed_over(settings, read), lambda: change(settings)


def of_owner():
    owner = Owner()
    return owner.model, lambda: owner.config.inner["list"].__setitem__(0, 2.0)


def of_partial():
    config = {"beta": 1.0}
    return partial(lambda config, x: (x * config["beta"],), config), lambda: config.update(beta=2.0)


def of_default():
    config = Config()

    def program(x, config=config):
        return (x * config.weight(),)

    return program, lambda: setattr(config, "beta", 2.0)


def of_global():
    return lambda x: (x * SETTINGS["beta"],), lambda: SETTINGS.update(beta=2.0)


def of_python_module():
    return lambda x: (x * HIDDEN.beta,), lambda: setattr(HIDDEN, "beta", 2.0)


def of_class(change):
    net = Net()
    return lambda x: (net(x),), lambda: change(net)


def item(key):
    return lambda settings: settings[key], lambda settings: settings.__setitem__(key, 2.0)


def attribute(name):
    return lambda settings: getattr(settings, name), lambda settings: setattr(settings, name, 2.0)


CASES = {
    "a dict": lambda: case({"beta": 1.0}, *item("beta")),
    "an OrderedDict": lambda: case(OrderedDict(beta=1.0), *item("beta")),
    "a defaultdict": lambda: (
        case(defaultdict(lambda: 1.0, {"other": 3.0}), *item("other")[:1], item("other")[1])
        if False
        else case(defaultdict(float, beta=1.0), *item("beta"))
    ),
    "a UserDict": lambda: case(UserDict(beta=1.0), *item("beta")),
    "a list": lambda: case([0.0, 1.0], *item(1)),
    "a deque": lambda: case(deque([0.0, 1.0]), *item(1)),
    "a set": lambda: case({1.0}, max, lambda settings: settings.add(2.0)),
    "an array": lambda: case(
        np.ones(3), lambda settings: float(settings[0]), lambda settings: settings.fill(2.0)
    ),
    "a number of NumPy": lambda: case(
        {"beta": np.float64(1)},
        lambda settings: float(settings["beta"]),
        lambda settings: settings.update(beta=np.float64(2)),
    ),
    "a tuple in a dict": lambda: case(
        {"betas": (0.0, 1.0)},
        lambda settings: settings["betas"][1],
        lambda settings: settings.update(betas=(0.0, 2.0)),
    ),
    "four levels": lambda: case(
        {"a": [{"b": [1.0]}]},
        lambda settings: settings["a"][0]["b"][0],
        lambda settings: settings["a"][0]["b"].__setitem__(0, 2.0),
    ),
    "a dataclass": lambda: case(Config(), *attribute("beta")),
    "a SimpleNamespace": lambda: case(types.SimpleNamespace(beta=1.0), *attribute("beta")),
    "an argparse.Namespace": lambda: case(argparse.Namespace(beta=1.0), *attribute("beta")),
    "slots": lambda: case(Slots(), *attribute("beta")),
    "a NamedTuple": lambda: case(
        Point([1.0]), lambda point: point.betas[0], lambda point: point.betas.__setitem__(0, 2.0)
    ),
    "a plain object": lambda: case(Plain(), lambda settings: settings.beta, attribute("beta")[1]),
    "a property": lambda: case(Plain(), lambda settings: settings.weight, attribute("beta")[1]),
    "an attribute made up by __getattr__": lambda: case(
        Dynamic(), lambda settings: settings.beta, lambda settings: settings.fields.update(beta=2.0)
    ),
    "an attribute that hides one of the class": lambda: case(
        Plain(), lambda settings: settings.shared, lambda settings: setattr(settings, "shared", 2.0)
    ),
    "an attribute that was not there": lambda: case(
        Plain(),
        lambda settings: getattr(settings, "other", 1.0),
        lambda settings: setattr(settings, "other", 2.0),
    ),
    "a method": lambda: case(Config(), lambda settings: settings.weight(), attribute("beta")[1]),
    "vars": lambda: case(Config(), lambda settings: vars(settings)["beta"], attribute("beta")[1]),
    "a function in a dict": lambda: case(
        {"f": lambda: 1.0},
        lambda settings: settings["f"](),
        lambda settings: settings.update(f=lambda: 2.0),
    ),
    "the object of a method": of_owner,
    "an argument given beforehand": of_partial,
    "a default": of_default,
    "a global": of_global,
    "a module of Python": of_python_module,
    "a dict of a module": lambda: of_class(lambda net: net.config.update(beta=2.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_setting_that_changes_is_read_at_once_and_the_program_is_traced_again(name):
    function, change = CASES[name]()
    program = Program(function)
    for _ in range(5):
        assert torch.equal(program(X)[0], X)
    change()
    for _ in range(4):
        assert torch.equal(program(X)[0], 2 * X)
    assert program.how == "traced"
    SETTINGS["beta"] = HIDDEN.beta = 1.0


def test_class_attributes_are_read_at_once(monkeypatch):
    net, plain = Net(), Plain()
    for program in (Program(lambda x: (net(x),)), Program(lambda x: (x * Plain.shared,))):
        for _ in range(5):
            program(X)
        monkeypatch.setattr(Net, "beta", 2.0)
        monkeypatch.setattr(Plain, "shared", 2.0)
        assert torch.equal(program(X)[0], 2 * X)
        monkeypatch.undo()
    program = Program(lambda x: (x * plain.shared,))
    for _ in range(5):
        program(X)
    monkeypatch.setattr(Plain, "shared", 2.0)
    assert torch.equal(program(X)[0], 2 * X)
    plain.shared = 3.0
    assert torch.equal(program(X)[0], 3 * X)


def test_what_the_program_does_not_read_may_change_without_another_trace():
    owner = Owner()
    program = Program(owner.model)
    for step in range(12):
        program(X)
        owner.losses.append(float(step))
    assert len(program._records) == 1


def test_what_the_program_itself_writes_needs_no_other_trace():
    log, cache = [], {}

    def program(x):
        log.append(1)
        cache.setdefault(x.shape, torch.ones(x.shape))
        return (x * cache[x.shape],)

    program = Program(program)
    for _ in range(12):
        assert torch.equal(program(X)[0], X)
    assert (len(program._records), program.how) == (1, "traced")


def test_functions_that_take_each_others_place_are_told_apart():
    """An address is used again once its owner is gone."""
    settings = {"f": lambda: 1.0}
    program = Program(lambda x: (x * settings["f"](),))
    for factor in range(12):
        settings["f"] = partial(float, factor)
        for _ in range(2):
            assert torch.equal(program(X)[0], factor * X)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (1, True), (0.0, -0.0), ([1, 2], (1, 2)), ([], {}), ("1", 1), (None, 0)],
)
def test_values_that_are_equal_and_act_otherwise_are_told_apart(one, other):
    settings, containers = [one], Containers()
    containers.add(lambda: settings)
    before = containers.key()
    settings[0] = other
    assert containers.key() != before
    settings[0] = one
    assert containers.key() == before


def test_not_a_number_is_equal_to_itself():
    settings, containers = [float("nan")], Containers()
    containers.add(lambda: settings)
    before = containers.key()
    settings[0] = float("nan")
    assert containers.key() == before


def test_the_depth_and_the_size_are_as_stated():
    containers, deep = Containers(), [[[[[0.0]]]]]
    wide = list(range(5000))
    containers.add(lambda: deep)
    before = containers.key()
    deep[0][0][0][0][0] = 1.0
    assert containers.key() != before
    containers.add(lambda: wide)
    assert len(containers.values()) == 1000
    before = containers.key()
    wide[4000] = -1
    assert containers.key() == before
    wide[500] = -1
    assert containers.key() != before


def test_a_container_that_holds_itself_is_no_trouble():
    settings, containers = {"beta": 1.0}, Containers()
    settings["self"] = settings
    containers.add(lambda: settings)
    before = containers.key()
    settings["beta"] = 2.0
    assert containers.key() != before
