"""Fit y = 2x + 1 with one linear layer; every step builds its graph anew."""

import tracegraph as torch
import tracegraph.nn as nn
import tracegraph.optim as optim


class LinearRegressionModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)


def make_model():
    return LinearRegressionModel()


def make_step(model):
    criterion = nn.MSELoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    x_train = torch.tensor([[1.0], [2.0], [3.0], [4.0]], requires_grad=True)
    y_train = torch.tensor([[3.0], [5.0], [7.0], [9.0]])

    def step():
        outputs = model(x_train)
        loss = criterion(outputs, y_train)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def run(model):
    step = make_step(model)
    num_epochs = 100
    for epoch in range(num_epochs):
        loss = step()
        if (epoch + 1) % 10 == 0:
            print(f"Epoch [{epoch + 1}/{num_epochs}], Loss: {loss.item():.4f}")
    with torch.no_grad():
        test_input = torch.tensor([[5.0]])
        predicted = model(test_input)
        print(f"Predicted value for input 5.0: {predicted.item():.4f}")
    return {"loss": loss, "predicted": predicted, "weight": model.linear.weight}


def trace_inputs():
    return (torch.tensor([[5.0], [6.0]]),)
