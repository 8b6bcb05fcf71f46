"""Settings: one file an environment, overrides of a notebook, one frozen object."""

from orchestra_lib.settings.load import STRATEGY, environments, load, root
from orchestra_lib.settings.model import Settings
from orchestra_lib.settings.overrides import OVERRIDES, parameter_names, secret_parameters

__all__ = ["OVERRIDES", "STRATEGY", "Settings", "environments", "load", "parameter_names", "root", "secret_parameters"]
