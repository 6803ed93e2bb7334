"""Train one linear layer, then the exercises: another loss, hidden layers, a look at the graph."""

import tracegraph as torch
import tracegraph.nn as nn
import tracegraph.optim as optim


def make_model():
    return nn.ModuleDict(
        {
            "line": nn.Linear(1, 1),
            "absolute": nn.Linear(1, 1),
            "deep": nn.Sequential(
                nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)
            ),
        }
    )


def make_step(model, criterion=None):
    criterion = criterion or nn.MSELoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    y = torch.tensor([[2.0], [4.0], [6.0], [8.0]])

    def step():
        outputs = model(x)
        loss = criterion(outputs, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def run(model):
    results = {}
    losses = {"line": nn.MSELoss(), "absolute": nn.L1Loss(), "deep": nn.MSELoss()}
    for name, criterion in losses.items():
        step = make_step(model[name], criterion)
        for epoch in range(100):
            loss = step()
            if (epoch + 1) % 10 == 0:
                print(f"{name}: Epoch [{epoch + 1}/100], Loss: {loss.item():.4f}")
        results[name] = loss
    return results


def trace_inputs():
    return (torch.tensor([[1.0], [2.5]]),)
