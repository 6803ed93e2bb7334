"""Differentiate z = x·y + y² at (2, 3)."""

import tracegraph as torch


def make_model():
    return None


def run(model):
    x = torch.tensor(2.0, requires_grad=True)
    y = torch.tensor(3.0, requires_grad=True)
    z = x * y + y**2
    z.backward()
    print(f"dz/dx: {x.grad}")
    print(f"dz/dy: {y.grad}")
    return {"z": z, "dx": x.grad, "dy": y.grad}


def slope(x, y):
    x, y = (t.detach().requires_grad_() for t in (x, y))
    z = x * y + y**2
    z.backward()
    return z, x.grad, y.grad


def trace_inputs():
    return torch.tensor(2.0), torch.tensor(3.0)
