"""Data: stored rows, their sources, and the transforms that make x from them."""

from pyro_vae.data.batch import Batch
from pyro_vae.data.batches import Batches, Shuffled, WithReplacement
from pyro_vae.data.missing import Missing, filled
from pyro_vae.data.rows import Data, Rows, as_rows
from pyro_vae.data.sources import (
    KMNIST,
    MNIST,
    ArrayFile,
    Digits,
    FashionMNIST,
    OneHot,
    Source,
    Splits,
    TorchvisionImages,
    data_folder,
    load_splits,
)
from pyro_vae.data.storage import ReadOneByOne, SparseMatrix, Storage
from pyro_vae.data.transforms import (
    DynamicDraw,
    FixedDraw,
    Identity,
    OpenUnitInterval,
    Threshold,
    Transform,
    UnitInterval,
)

__all__ = [
    "KMNIST",
    "MNIST",
    "ArrayFile",
    "Batch",
    "Batches",
    "Data",
    "Digits",
    "DynamicDraw",
    "FashionMNIST",
    "FixedDraw",
    "Identity",
    "Missing",
    "OneHot",
    "OpenUnitInterval",
    "ReadOneByOne",
    "Rows",
    "Shuffled",
    "Source",
    "SparseMatrix",
    "Splits",
    "Storage",
    "Threshold",
    "TorchvisionImages",
    "Transform",
    "UnitInterval",
    "WithReplacement",
    "as_rows",
    "data_folder",
    "filled",
    "load_splits",
]
