"""Codes in a `.h5ad` file, beside the matrix that they are codes of."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

SUFFIX = ".h5ad"


def check_annotated(data: str | None, out: Path) -> None:
    """Refuse a `.h5ad` file for the codes of other data than one.

    Raises:
        ValueError: if the data are no `.h5ad` file.
    """
    if data is None or Path(data).suffix.lower() != SUFFIX:
        raise ValueError(f"'data' must be a {SUFFIX} file to write codes to {out}, got {data}.")


def write_annotated(out: Path, data: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a copy of annotated data with codes: means and scales in `obsm`, k-hat in `obs`.

    Arguments:
        out: the file to write, which may be that of the data.
        data: the file of the data.
        arrays: the codes, by name.
    """
    import anndata  # an extra, which reading the data has needed

    annotated = anndata.read_h5ad(data)
    annotated.obsm["X_pyro_vae"] = arrays["mean"]
    annotated.obsm["X_pyro_vae_scale"] = arrays["scale"]
    if "khat" in arrays:
        annotated.obs["pyro_vae_khat"] = arrays["khat"]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    annotated.write_h5ad(part)
    part.replace(out)
