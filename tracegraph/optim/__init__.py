"""Optimizers with PyTorch's names, arguments and state."""

from tracegraph.optim import lr_scheduler
from tracegraph.optim.adam import NAdam, RAdam, Adam, Adamax, AdamW
from tracegraph.optim.adaptive import Adadelta, Adagrad, RMSprop
from tracegraph.optim.optimizer import Optimizer
from tracegraph.optim.sgd import ASGD, SGD, Rprop

__all__ = [
    "ASGD", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "Optimizer",
    "RAdam", "RMSprop", "Rprop", "lr_scheduler",
]  # fmt: skip
