"""One training step of a residual network on random images and labels."""

import tracegraph as torch
from tests.workloads import resnet18


def make_model():
    return resnet18(torch, width=4, classes=1000)


def make_step(model, data, labels):
    optim = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)

    def step():
        prediction = model(data)
        loss = (prediction - labels).sum()
        loss.backward()
        optim.step()
        return loss

    return step


def run(model, data=None, labels=None):
    if data is None:
        data = torch.rand(1, 3, 64, 64)
        labels = torch.rand(1, 1000)
    loss = make_step(model, data, labels)()
    first = next(model.parameters())
    print(tuple(first.grad.shape))
    return {"loss": loss, "gradient": first.grad, "weight": first}


def trace_inputs():
    torch.manual_seed(9)
    return (torch.rand(1, 3, 64, 64),)
