"""Proposal of a likelihood for rows, by the types of their columns."""

from itertools import groupby
from typing import Any

from pyro_vae.data.columns import Column, columns_of
from pyro_vae.data.rows import Rows

# The likelihood of a column of each kind.
_BY_KIND = {
    "real": "NormalLikelihood",
    "whole": "NormalLikelihood",
    "count": "NegativeBinomialLikelihood",
    "binary": "BernoulliLikelihood",
    "category": "OneHotCategoricalLikelihood",
}
# The most levels of images that are scored as levels.
_MOST_LEVELS = 256


def proposed_likelihood(rows: Rows) -> dict[str, Any]:
    """Return the settings of a likelihood that suits rows.

    Real and negative whole numbers get a normal. Whole numbers from 0 get a negative binomial,
    zeros and ones a Bernoulli, and categories a categorical. Columns of several kinds get a product
    of these. Images of whole levels get a discretised logistic, and others a normal.

    Arguments:
        rows: the rows as they are stored.
    """
    if len(rows.x_shape) == 1:
        return _of_table(columns_of(rows))
    if rows.levels.dtype.is_floating_point or rows.max_level >= _MOST_LEVELS:
        return {"class_path": "NormalLikelihood"}
    levels = int(rows.max_level) + 1
    return {"class_path": "DiscretizedLogisticLikelihood", "init_args": {"num_levels": levels}}


def _of_table(columns: list[Column]) -> dict[str, Any]:
    groups: list[dict[str, Any]] = []
    for likelihood, members in groupby(columns, key=lambda column: _BY_KIND[column.kind]):
        sizes = [column.size for column in members]
        is_joint = likelihood == _BY_KIND["category"]  # each category is an event of its own
        parts = sizes if is_joint else [sum(sizes)]
        groups += [{"size": size, "likelihood": likelihood} for size in parts]
    if len(groups) == 1:
        return {"class_path": groups[0]["likelihood"]}
    return {"class_path": "ProductLikelihood", "init_args": {"columns": groups}}
