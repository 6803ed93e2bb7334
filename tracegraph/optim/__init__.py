"""Optimizers with PyTorch's names, arguments and state."""

from tracegraph.module_names import also_named
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
also_named(__name__, "adamax adamw nadam radam", adam)
also_named(__name__, "adadelta adagrad rmsprop", adaptive)
also_named(__name__, "asgd rprop", sgd)
