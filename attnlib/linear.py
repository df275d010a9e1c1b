"""A linear layer for decoding: the threads of a CPU share its weights, also for one row."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """``nn.Linear``, but all threads of a CPU work where x is a single row, as in decoding.

    One row reads every weight once and does little with it, so the time is that of reading.
    PyTorch gives the row to one thread, which cannot use all of the memory's bandwidth. Here
    the outputs are cut into parts, one product of a batch each, which the threads share.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b.

        Args:
            x: shape ``(..., in_features)``.

        Returns:
            Shape ``(..., out_features)``.
        """
        single = x.numel() == self.in_features and x.device.type == "cpu"
        if not single or x.dtype not in (torch.float32, torch.float64):
            return super().forward(x)
        if torch.get_num_threads() == 1:  # no other thread to share with
            return super().forward(x)
        parts = gcd(self.out_features, 16)  # P
        row = x.reshape(1, 1, -1).expand(parts, -1, -1)  # (P, 1, in)
        weight = self.weight.view(parts, -1, self.in_features)  # (P, out / P, in)
        out = torch.bmm(row, weight.mT).view(*x.shape[:-1], -1)  # (..., out)
        return out if self.bias is None else out + self.bias
