"""Fit a line to noisy points, printing the loss and the parameters of every epoch."""

import tracegraph as torch
import tracegraph.nn as nn


class LinearRegression(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)


def make_model():
    return LinearRegression()


def points():
    torch.manual_seed(7)
    x = torch.randn(100, 1)
    return x, 3 * x + 2 + torch.randn(100, 1)


def make_step(model, x, y):
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        y_pred = model(x)
        loss = criterion(y_pred, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def run(model, x=None, y=None):
    print(model)
    if x is None:
        x, y = points()
    step = make_step(model, x, y)
    for epoch in range(20):
        loss = step()
        print(f"Epoch {epoch}, loss: {loss.item():.4f}")
        for name, param in model.named_parameters():
            print(name, param.data)
    x_test = torch.tensor([[4.0]])
    y_test = model(x_test)
    print(f"Predicted y for x = 4: {y_test.item():.4f}")
    return {"loss": loss, "y_test": y_test, "weight": model.linear.weight}


def trace_inputs():
    return (torch.tensor([[4.0]]),)
