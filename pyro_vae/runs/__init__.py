"""Runs: a VAE built from settings, and saved to and loaded from a run folder."""

from pyro_vae.runs.folder import FORMAT, GROUPS, RunFolder, write_atomically
from pyro_vae.runs.parser import SentenceParser, run, run_parser
from pyro_vae.runs.record import DataRecord, data_record
from pyro_vae.runs.settings import (
    DataSettings,
    ModelSettings,
    Settings,
    build_vae,
    check_settings,
    device,
    initialized,
    instantiate,
    load,
    load_data,
    load_settings,
    prepare,
    read_preset,
    rows_like,
    settings_parser,
)
from pyro_vae.runs.swaps import Swap

__all__ = [
    "FORMAT",
    "GROUPS",
    "DataRecord",
    "DataSettings",
    "ModelSettings",
    "RunFolder",
    "SentenceParser",
    "Settings",
    "Swap",
    "build_vae",
    "check_settings",
    "data_record",
    "device",
    "initialized",
    "instantiate",
    "load",
    "load_data",
    "load_settings",
    "prepare",
    "read_preset",
    "rows_like",
    "run",
    "run_parser",
    "settings_parser",
    "write_atomically",
]
