"""A classifier that picks its second layer by the width of what the first one made."""

import tracegraph as torch
from tracegraph import nn


class DynamicClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(100, 50)
        self.fc2 = nn.Linear(50, 10)
        self.fc3 = nn.Linear(50, 10)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        if x.shape[1] > 40:
            x = torch.relu(self.fc2(x))
        else:
            x = torch.relu(self.fc3(x))
        return x


def make_model():
    return DynamicClassifier()


def run(model, input_data=None):
    if input_data is None:
        input_data = torch.randn(1, 100)
    output = model(input_data)
    print(output)
    return {"output": output}


def trace_inputs():
    torch.manual_seed(3)
    return (torch.randn(2, 100),)
