"""Make tensors from data, arrays, other tensors and random numbers; change them in place."""

import numpy as np

import tracegraph as torch


def make_model():
    return None


def run(model):
    data = [[1, 2], [3, 4]]
    x_data = torch.tensor(data)
    np_array = np.array(data)
    x_np = torch.from_numpy(np_array)
    np_array[0, 0] = 7  # the tensor shares the array's memory
    print(x_np[0, 0].item())

    x_ones = torch.ones_like(x_data)
    print(f"Ones Tensor: \n {x_ones} \n")
    x_rand = torch.rand_like(x_data, dtype=torch.float)
    print(x_rand.shape, x_rand.dtype == torch.float32)

    shape = (2, 3)
    rand_tensor = torch.rand(shape)
    ones_tensor = torch.ones(shape)
    zeros_tensor = torch.zeros(shape)
    print(f"Random: {bool(((rand_tensor >= 0) & (rand_tensor < 1)).all())}")
    print(f"Ones Tensor: \n {ones_tensor} \n")
    print(f"Zeros Tensor: \n {zeros_tensor}")

    tensor = torch.rand(3, 4)
    print(f"Shape of tensor: {tuple(tensor.shape)}")
    print(f"Datatype of tensor: {str(tensor.dtype).rpartition('.')[2]}")
    print(f"Device tensor is stored on: {tensor.device}")
    if torch.cuda.is_available():
        tensor = tensor.to("cuda")
    return {"x_data": x_data, "x_np": x_np, **arithmetic()}


def arithmetic():
    tensor = torch.ones(4, 4)
    tensor[:, 1] = 0
    print(tensor)
    t1 = torch.cat([tensor, tensor, tensor], dim=1)
    print(t1)
    print(tensor, "\n")
    tensor.add_(5)
    print(tensor)
    return {"joined": t1, "tensor": tensor}


def slope(tensor):
    tensor = tensor.clone()
    tensor[:, 1] = 0
    joined = torch.cat([tensor, tensor, tensor], dim=1)
    tensor.add_(5)
    return joined, tensor


def trace_inputs():
    return (torch.ones(4, 4),)
