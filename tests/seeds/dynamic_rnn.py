"""A recurrent network over packed sequences of different lengths, in any order."""

import tracegraph as torch
from tracegraph import nn


class DynamicRNN(nn.Module):
    def __init__(self, input_size, hidden_size, output_size):
        super().__init__()
        self.rnn = nn.RNN(input_size, hidden_size, batch_first=True)
        self.fc = nn.Linear(hidden_size, output_size)

    def forward(self, x, seq_lengths):
        sorted_lengths, indices = torch.sort(seq_lengths, descending=True)
        _, unsorted_indices = indices.sort()
        packed = nn.utils.rnn.pack_padded_sequence(x[indices], sorted_lengths, batch_first=True)
        packed_output, _ = self.rnn(packed)
        unpacked, _ = nn.utils.rnn.pad_packed_sequence(packed_output, batch_first=True)
        output = unpacked[unsorted_indices]
        last = [output[i, length - 1, :] for i, length in enumerate(seq_lengths)]
        return self.fc(torch.stack(last))


def make_model():
    return DynamicRNN(input_size=10, hidden_size=20, output_size=1)


def run(model, input_data=None, seq_lengths=None):
    if input_data is None:
        input_data = torch.randn(3, 10, 10)
        seq_lengths = torch.tensor([9, 7, 5])
    output = model(input_data, seq_lengths)
    print(output)
    return {"output": output}


def trace_inputs():
    torch.manual_seed(5)
    return torch.randn(3, 10, 10), torch.tensor([9, 7, 5])
