"""A recorder of the tensors that code makes, to find copies and matrices that should not be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocation(NamedTuple):
    """One floating-point tensor that an operator returned.

    Attributes:
        numel: numbers in the tensor.
        operator: which operator returned it.
        shape: of the tensor.
        stored: numbers in the memory behind it; a view or ``expand`` adds none.
        line: the line of code that called the operator; empty unless it was asked for.
    """

    numel: int
    operator: str
    shape: tuple[int, ...]
    stored: int
    line: str = ""


class AllocationRecorder(TorchDispatchMode):
    """Records every floating-point tensor that any operator returns while it is active.

    It sees what happens inside of PyTorch's functions as well, such as the fallback of
    ``scaled_dot_product_attention``. Use it in a ``with`` statement.

    Args:
        current_line: returns the line of code that runs now; ``None`` records no lines.

    Attributes:
        operators: the names of all operators that ran, in their order.
        allocations: what they returned, in the same order.
    """

    def __init__(self, current_line: Callable[[], str] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current_line = current_line
        self.operators: list[str] = []
        self.allocations: list[Allocation] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:  # fmt: skip
        """Run an operator and record what it returns."""
        result = operator(*args, **(kwargs or {}))
        name = str(operator)
        self.operators.append(name)
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.is_floating_point():
                stored = x.untyped_storage().nbytes() // x.element_size()
                line = self.current_line() if self.current_line else ""
                shape = tuple(x.shape)
                self.allocations.append(Allocation(x.numel(), name, shape, stored, line))
        return result

    def largest(self) -> Allocation:
        """The tensor with the most numbers."""
        return max(self.allocations)
