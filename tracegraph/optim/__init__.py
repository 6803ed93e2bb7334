"""Optimizers with PyTorch's names, arguments and state."""

from tracegraph.optim import lr_scheduler, swa_utils
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
