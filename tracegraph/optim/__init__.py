"""Optimizers with PyTorch's names, arguments and state."""

import sys

from tracegraph.optim import adam, adaptive, lr_scheduler, sgd, swa_utils
from tracegraph.optim.adam import Adam, Adamax, AdamW, NAdam, RAdam
from tracegraph.optim.adaptive import Adadelta, Adafactor, Adagrad, RMSprop
from tracegraph.optim.lbfgs import LBFGS
from tracegraph.optim.muon import Muon
from tracegraph.optim.optimizer import Optimizer
from tracegraph.optim.sgd import ASGD, SGD, Rprop

__all__ = [
    "ASGD", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax",
    "Muon", "NAdam", "Optimizer", "RAdam", "RMSprop", "Rprop", "lr_scheduler",
    "swa_utils",
]  # fmt: skip

# PyTorch has a module for each optimizer; programs import from them.
_MODULES = {
    adam: "adamax adamw nadam radam",
    adaptive: "adadelta adagrad rmsprop",
    sgd: "asgd rprop",
}
for _module, _names in _MODULES.items():
    for _name in _names.split():
        globals()[_name] = sys.modules[f"{__name__}.{_name}"] = _module
