"""What importing the package does to a program, which module may import which, and the examples in the docstrings."""

import ast
import doctest
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

import pyro_vae
from pyro_vae.data import Batches, Source, Transform
from pyro_vae.objectives import Schedule
from pyro_vae.parts import Likelihood, Posterior, Prior, Scale

PACKAGE = Path(pyro_vae.__file__).parent
# The folders that each room may import from, besides its own and support.
MAY_IMPORT = {
    "support": set(),
    "data": set(),
    "distributions": set(),
    "engine": set(),
    "parts": {"data", "distributions"},
    "vae": {"parts", "data", "distributions"},
    "inference": {"engine", "distributions"},
    "objectives": {"inference", "distributions"},
    "evaluation": {"vae", "data", "inference", "engine", "distributions"},
    "training": {"evaluation", "objectives", "inference", "engine", "vae", "data"},
    "diagnostics": {"evaluation", "inference", "vae", "data"},
    "figures": {"training", "diagnostics", "inference"},
    "runs": {"training", "evaluation", "vae", "parts", "objectives", "data"},
    "commands": {
        *("runs", "figures", "diagnostics", "training", "evaluation", "objectives"),
        *("inference", "engine", "vae", "parts", "distributions", "data"),
    },
}

IMPORT = """
import json, logging, random, sys, warnings
import numpy, pyro, torch
import pyro.distributions, pyro.infer, pyro.poutine

def state():
    root = logging.getLogger()
    return {
        "validation of distributions": pyro.distributions.is_validation_enabled(),
        "validation of inference": pyro.infer.is_validation_enabled(),
        "validation of poutine": pyro.poutine.is_validation_enabled(),
        "validation of torch": torch.distributions.Distribution._validate_args,
        "settings of Pyro": repr(pyro.settings.get()),
        "param store": list(pyro.get_param_store().keys()),
        "default dtype": str(torch.get_default_dtype()),
        "gradients": torch.is_grad_enabled(),
        "random state of torch": torch.get_rng_state().tolist(),
        "random state of numpy": repr(numpy.random.get_state()),
        "random state of Python": repr(random.getstate()),
        "threads": torch.get_num_threads(),
        "filters of warnings": repr(warnings.filters),
        "handlers of logging": repr(root.handlers),
        "level of logging": root.level,
        "logging disabled": logging.root.manager.disable,
        "import path": sys.path,
    }

before = state()
import pyro_vae
for name in set(pyro_vae.__all__) - {"load", "load_data", "rows_like"}:  # of run folders
    getattr(pyro_vae, name)
after = state()
print(json.dumps({
    "changed": [name for name in before if before[name] != after[name]],
    "loaded": [name for name in sys.argv[1:] if name in sys.modules],
}))
"""


@lru_cache
def modules():
    found = pkgutil.walk_packages([str(PACKAGE)], "pyro_vae.")
    names = [module.name.removeprefix("pyro_vae.") for module in found]
    return [name for name in names if name != "__main__"]


def test_importing_the_package_changes_nothing_and_loads_only_what_every_use_needs():
    heavy = ["torchvision", "sklearn", "matplotlib", "zuko", "jsonargparse", "yaml"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT, *heavy],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == {"changed": [], "loaded": []}
    assert done.stderr == ""


# The direction of imports


def room_of(module):
    """The folder of a module of the package, or `vae`."""
    return module.removeprefix("pyro_vae.").split(".")[0]


@lru_cache
def imports_of(module):
    """The modules where the names that a module imports are defined."""
    return frozenset(imported(module))


def imported(module):
    """The modules where the names that a module imports are defined, also inside functions."""
    tree = ast.parse(inspect.getsource(importlib.import_module(f"pyro_vae.{module}")))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} must name whole paths"
            for alias in node.names:
                yield home_of(node.module, alias.name)


def home_of(module, name):
    """The module that defines a name; the module that it is imported from, if it is a constant."""
    if not module.startswith("pyro_vae"):
        return module
    value = getattr(importlib.import_module(module), name)
    if inspect.ismodule(value):
        return value.__name__
    return getattr(value, "__module__", None) or module


def of_package(module):
    return {name for name in imports_of(module) if name.startswith("pyro_vae.")}


def test_the_table_names_every_room():
    assert {room_of(name) for name in modules()} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_from_rooms_that_its_own_may_use(module):
    room = room_of(module)
    assert {room_of(name) for name in of_package(module)} <= MAY_IMPORT[room] | {room, "support"}


def test_the_vae_knows_contracts_and_no_family():
    of_parts = {name for name in of_package("vae") if room_of(name) == "parts"}
    assert of_parts <= {
        "pyro_vae.parts.contracts",
        "pyro_vae.parts.checks",
        "pyro_vae.parts.missing_entries",
        "pyro_vae.parts.offsets",
        "pyro_vae.parts.trials",
    }


def test_the_rooms_have_no_circle():
    left = {room: set(others) for room, others in MAY_IMPORT.items()}
    while left:
        free = {room for room, others in left.items() if not others & set(left)}
        assert free, f"a circle among {sorted(left)}"
        left = {room: others for room, others in left.items() if room not in free}


@pytest.mark.parametrize("name", modules())
def test_the_modules_of_a_room_have_no_circle(name):
    found, new = set(), {f"pyro_vae.{name}"}
    while new:
        found |= new
        new = {other for module in new for other in of_package(module[9:])} - found
        assert f"pyro_vae.{name}" not in new
        new = {module for module in new if module[9:] in modules()}


@pytest.mark.parametrize("folder", sorted(set(MAY_IMPORT) - {"vae", "commands"}))
def test_no_module_bears_the_name_of_what_its_folder_exports(folder):
    package = importlib.import_module(f"pyro_vae.{folder}")
    files = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not files & set(package.__all__)


def test_contributing_shows_the_same_table():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+)(?:/|\.py)` \|[^|]*\|([^|]*)\|$", text, flags=re.MULTILINE)
    shown = {room: set(re.findall(r"[a-z]+", others)) - {"nothing"} for room, others in rows}
    assert shown == MAY_IMPORT


# The public names


def test_all_lists_what_the_package_imports_for_its_users():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imports = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("pyro_vae")
    ]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    assert set(pyro_vae.__all__) == set(homes)
    for name, home in homes.items():  # found at its first use
        assert getattr(pyro_vae, name) is getattr(importlib.import_module(home), name)


def test_importing_the_package_alone_imports_nothing_else():
    code = "import sys, pyro_vae; print({name.partition('.')[0] for name in sys.modules} & LARGE)"
    code = code.replace("LARGE", "{'torch', 'pyro', 'numpy', 'jsonargparse'}")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_the_folders_are_attributes_of_the_package():
    assert pyro_vae.parts is importlib.import_module("pyro_vae.parts")
    assert set(pyro_vae.__all__) <= set(dir(pyro_vae))


def test_all_is_sorted_as_ruff_sorts_it():
    def key(name):  # constants, classes, functions; numbers in a name by their value
        kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
        return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    assert pyro_vae.__all__ == sorted(set(pyro_vae.__all__), key=key)


@pytest.mark.parametrize("name", pyro_vae.__all__)
def test_every_public_name_is_there_and_explains_itself(name):
    value = getattr(pyro_vae, name)
    assert value.__module__.startswith("pyro_vae.")
    assert inspect.getdoc(value)


@pytest.mark.parametrize(
    "base", [Prior, Likelihood, Posterior, Scale, Transform, Source, Batches, Schedule]
)
def test_every_final_class_of_a_role_is_public(base):
    def subclasses(cls):
        return {cls}.union(*(subclasses(subclass) for subclass in cls.__subclasses__()))

    final = {
        cls.__name__
        for cls in subclasses(base)
        if not inspect.isabstract(cls) and cls.__module__ in all_modules
    }
    assert final
    assert final <= set(pyro_vae.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pyro_vae' has no attribute 'lod'"):
        _ = pyro_vae.lod


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert pyro_vae.__version__ == version("pyro_vae")


# The examples

all_modules = [f"pyro_vae.{name}" for name in modules()]


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = (test for name in all_modules for test in finder.find(importlib.import_module(name)))
    return {test.name.removeprefix("pyro_vae."): test for test in found if test.examples}


EXAMPLES = examples()


@pytest.fixture
def names():
    """What an example may use without importing it."""
    vae = pyro_vae.VAE(
        prior=pyro_vae.StandardNormalPrior(latent_dim=2),
        likelihood=pyro_vae.BernoulliLikelihood(pyro_vae.MLP(2, [8], 16), x_shape=(1, 4, 4)),
        posterior=pyro_vae.DiagNormalPosterior(
            pyro_vae.MLP(16, [8], 4), x_shape=(1, 4, 4), latent_dim=2
        ),
    )
    public = {name: getattr(pyro_vae, name) for name in pyro_vae.__all__}
    yield (names := public | {"torch": torch, "nn": nn, "Trace_ELBO": Trace_ELBO, "vae": vae})
    names.clear()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_class_does_what_it_shows(name, names):
    test = EXAMPLES[name]
    assert len([line for example in test.examples for line in example.source.splitlines()]) <= 6
    test.globs = names
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failed, tried = runner.run(test, out=report.append, clear_globs=False)
    assert tried
    assert not failed, "".join(report)


@pytest.mark.parametrize("base", [Prior, Likelihood, Posterior, Scale, Batches, Schedule])
def test_every_final_class_of_a_role_has_an_example(base):
    final = {
        name
        for name in pyro_vae.__all__
        if inspect.isclass(cls := getattr(pyro_vae, name)) and issubclass(cls, base)
    }
    assert {name for name in final if not inspect.isabstract(getattr(pyro_vae, name))} <= {
        name.split(".")[-1] for name in EXAMPLES
    }
