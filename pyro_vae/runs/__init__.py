"""Runs: a VAE built from settings, and saved to and loaded from a run folder."""

from pyro_vae.runs.devices import device
from pyro_vae.runs.errors import argument_named, used_from, whole_names
from pyro_vae.runs.exporting import Exported, export
from pyro_vae.runs.folder import FORMAT, RunFolder
from pyro_vae.runs.listing import (
    ListedRun,
    Listing,
    differing,
    list_runs,
    read_metrics,
    short_names,
)
from pyro_vae.runs.origin import Origin
from pyro_vae.runs.outputs import new_file, output_file, output_folder
from pyro_vae.runs.parser import Seed, SentenceParser, run_options, run_parser
from pyro_vae.runs.proposals import proposed_likelihood
from pyro_vae.runs.reading import GROUPS, is_yaml
from pyro_vae.runs.record import DataRecord, data_record
from pyro_vae.runs.script import INTERRUPTED, run
from pyro_vae.runs.settings import (
    DataSettings,
    LoggingSettings,
    ModelSettings,
    Settings,
    as_yaml,
    build_vae,
    check_settings,
    initialized,
    instantiate,
    load,
    load_data,
    load_settings,
    prepare,
    presets,
    read_preset,
    rows_like,
    settings_parser,
)
from pyro_vae.runs.swaps import Swap
from pyro_vae.support.files import write_atomically

__all__ = [
    "FORMAT",
    "GROUPS",
    "INTERRUPTED",
    "DataRecord",
    "DataSettings",
    "Exported",
    "ListedRun",
    "Listing",
    "LoggingSettings",
    "ModelSettings",
    "Origin",
    "RunFolder",
    "Seed",
    "SentenceParser",
    "Settings",
    "Swap",
    "argument_named",
    "as_yaml",
    "build_vae",
    "check_settings",
    "data_record",
    "device",
    "differing",
    "export",
    "initialized",
    "instantiate",
    "is_yaml",
    "list_runs",
    "load",
    "load_data",
    "load_settings",
    "new_file",
    "output_file",
    "output_folder",
    "prepare",
    "presets",
    "proposed_likelihood",
    "read_metrics",
    "read_preset",
    "rows_like",
    "run",
    "run_options",
    "run_parser",
    "settings_parser",
    "short_names",
    "used_from",
    "whole_names",
    "write_atomically",
]
