"""Annotated matrices of anndata, as biologists keep counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyro_vae.data.names import Names
from pyro_vae.data.readers.columns import (
    Roles,
    as_roles,
    check_roles,
    labels_and_contexts,
    x_columns,
)
from pyro_vae.data.readers.files import FileSource, needed
from pyro_vae.data.readers.pairs import check_observed
from pyro_vae.data.readers.table_file import columns_of_frame
from pyro_vae.data.rows import Rows
from pyro_vae.data.transforms import Identity
from pyro_vae.support.checks import nearest


class AnnDataFile(FileSource):
    """Matrix of an `.h5ad` file, with labels and contexts from the columns of its `obs`.

    A sparse matrix stays sparse: only a batch is dense. It needs anndata, as
    `pip install 'pyro_vae[anndata]'` installs it.

    Arguments:
        path: the file.
        layer: the layer that holds x, such as counts; empty for X.
        label: the column of `obs` with labels, whole numbers from 0 or strings; empty for none.
        context: the columns of `obs` that are the context y; one of strings becomes one-hot.
        ignored: the variables to leave out.
        test_fraction: the share of rows for the test.
        seed: names the random stream that chooses these rows.
        max_level: the highest possible level; inferred as in `ArrayFile` when omitted.

    Raises:
        ValueError: if a column has two roles, or `max_level` is not above 0.
    """

    kind = "an .h5ad file of anndata"

    def __init__(
        self,
        path: str,
        layer: str = "",
        label: str = "",
        context: Sequence[str] = (),
        ignored: Sequence[str] = (),
        test_fraction: float = 0.2,
        seed: int = 0,
        max_level: float | None = None,
    ) -> None:
        super().__init__(path, test_fraction, seed, max_level)
        self.layer = layer or None
        self.label = label or None
        roles = as_roles(label, context, ignored)
        self.context = list(roles.context)
        self.ignored = list(roles.ignored)

    def rows(self, known: Names | None = None) -> Rows:
        with self.reading():
            found = self._loaded()
            table = columns_of_frame(found.obs, self._needed())
        variables = [str(name) for name in found.var_names]
        roles = as_roles(self.label, self.context, ())
        check_roles(roles, table, self.path, known is None)
        left_out = Roles(None, (), tuple(self.ignored))
        check_roles(left_out, variables, self.path, known is None)
        names = x_columns(variables, left_out, self.path, known)
        given: dict[str, Any] = labels_and_contexts(table, roles, self.path, known)
        rows = Rows(self._matrix(found, variables, names), Identity(), column_names=names, **given)
        check_observed(rows)
        return rows

    def _needed(self) -> set[str]:
        label = () if self.label is None else (self.label,)
        return {*label, *self.context}

    def _loaded(self) -> Any:
        try:
            import anndata
        except ImportError:
            raise needed("anndata", "anndata", "an .h5ad file") from None
        return anndata.read_h5ad(self.path)

    def _matrix(self, found: Any, variables: list[str], names: Sequence[str]) -> Any:
        """Return the columns of these names, dense or sparse."""
        matrix = found.X if self.layer is None else found.layers.get(self.layer)
        if matrix is None:
            layers = list(found.layers)
            received = "X" if self.layer is None else repr(self.layer)
            raise ValueError(
                f"'layer' must be one of {', '.join(layers) or 'none'} of {self.path}, got "
                f"{received}, which it lacks{nearest(self.layer or '', layers)}."
            )
        if list(names) == variables:
            return matrix
        place = {name: number for number, name in enumerate(variables)}
        return matrix[:, np.array([place[name] for name in names])]
