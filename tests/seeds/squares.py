"""Make a tensor that wants a gradient, show it, and differentiate its square."""

import tracegraph as torch


def make_model():
    return None


def run(model):
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    print(x)
    v = torch.tensor([2.0, 3.0], requires_grad=True)
    y = v**2
    print(y)
    try:
        y.backward()
    except RuntimeError as error:
        # The tutorial shows gradients here; PyTorch wants a scalar, or a gradient to start from.
        print(error)
    y.backward(torch.ones(2))
    print(v.grad)
    return {"x": x, "y": y, "gradient": v.grad}


def slope(v):
    v = v.detach().requires_grad_()
    y = v**2
    y.sum().backward()
    return y, v.grad


def trace_inputs():
    return (torch.tensor([2.0, 3.0, -1.5]),)
