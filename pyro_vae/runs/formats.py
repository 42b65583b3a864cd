"""Settings of runs that older versions wrote, translated for this version."""

import re
from typing import Any

import pyro_vae

# The import path of a class through modules of the package, unless it is part of a file's name.
_LONG_PATH = re.compile(r"(?<![\w./])pyro_vae(?:\.\w+)+\.([A-Z]\w*)(?![\w./])")


def with_public_paths(text: str) -> str:
    """Return settings with each path `pyro_vae.<anything>.X` as `pyro_vae.X`, for public classes X.

    The modules of the package may move; its public names stay.
    """
    return _LONG_PATH.sub(_public_path, text)


def asked_with_public_paths(asked: Any) -> Any:
    """Return `Fit.asked`, or a part of it, with each path of a public class as `pyro_vae.X`.

    Older versions wrote the path of the module where a class was defined.
    """
    if isinstance(asked, dict):
        return {name: asked_with_public_paths(value) for name, value in asked.items()}
    if isinstance(asked, list):
        return [asked_with_public_paths(value) for value in asked]
    return with_public_paths(asked) if isinstance(asked, str) else asked


def _public_path(match: re.Match[str]) -> str:
    return f"pyro_vae.{match[1]}" if match[1] in pyro_vae.__all__ else match[0]


def upgraded(tree: dict[str, Any], written_in: int) -> dict[str, Any]:
    """Return settings of an older format as this one writes them.

    A setting that the older format lacks gets the value that the older version used. Upgrading
    twice changes nothing.

    Arguments:
        tree: the settings, with a branch for each group.
        written_in: the format of the run folder.
    """
    if written_in < 3 and "training" in tree:
        tree = tree | {"training": _with_execution(tree["training"])}
    if written_in > 1:
        return tree
    data = {"max_level": None} | tree.get("data", {})  # format 1 always took it from the data
    return tree | {"vae": _vae_of_format_1(tree.get("vae", {})), "data": data}


def _with_execution(training: dict[str, Any]) -> dict[str, Any]:
    """Return settings of training with those of the execution in their own group."""
    names = {"trace", "compile", "precision"} & training.keys()
    if not names:
        return training
    others = {name: value for name, value in training.items() if name not in names}
    return others | {"execution": {name: training[name] for name in sorted(names)}}


def _vae_of_format_1(vae: dict[str, Any]) -> dict[str, Any]:
    """Return settings of the VAE with the defaults of format 1.

    The encoder saw x as it is, and all counts shared one dispersion unless the settings named one.
    """
    known = {"encoder_sees": "pyro_vae.AsIs"} | vae
    if "likelihood" in known:
        known["likelihood"] = _with_one_dispersion(known["likelihood"])
    return known


def _with_one_dispersion(likelihood: Any) -> Any:
    """Return settings of a likelihood in which the dispersion is stated.

    In a product of likelihoods, this holds for each group of columns.
    """
    if isinstance(likelihood, str):
        return _with_one_dispersion({"class_path": likelihood, "init_args": {}})
    if not isinstance(likelihood, dict):
        return likelihood
    options = dict(likelihood.get("init_args") or {})
    if isinstance(options.get("columns"), list):
        options["columns"] = [_group_with_one_dispersion(group) for group in options["columns"]]
    is_count = str(likelihood.get("class_path")).endswith("NegativeBinomialLikelihood")
    if is_count and options.get("dispersion") is None:
        options["dispersion"] = {"class_path": "pyro_vae.LearnedScale"}
    return likelihood | {"init_args": options}


def _group_with_one_dispersion(group: Any) -> Any:
    """Return settings of one group of columns in which the dispersion is stated."""
    if not isinstance(group, dict):
        return group
    return group | {"likelihood": _with_one_dispersion(group.get("likelihood"))}
