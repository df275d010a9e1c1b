"""Masks: which keys a query may attend to, from positions."""

from __future__ import annotations

from torch import Tensor

from attnlib.checks import check_positions, check_size


def causal_mask(
    q_positions: Tensor, k_positions: Tensor, *, window: int | None = None
) -> Tensor:
    """Which keys each query may attend to, from absolute positions.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.3. ``window`` counts keys, the
    query's own included.

    Args:
        q_positions: query positions, shape ``(T,)`` or ``(B, T)``, int64, in tokens.
        k_positions: key positions, shape ``(S,)`` or ``(B, S)``, int64, in tokens; any order.
        window: keys each query may see; ``None`` means all earlier ones.

    Returns:
        Boolean mask, shape ``(T, S)`` or ``(B, T, S)``; True means the query may attend to the
        key.

    Raises:
        ValueError: if the positions are not integers of one or two dimensions, or ``window`` is
            less than 1.
    """
    check_positions("q_positions", q_positions)
    check_positions("k_positions", k_positions)
    distance = q_positions[..., :, None] - k_positions[..., None, :]  # (T, S), how far back
    mask = distance >= 0  # (T, S)
    if window is not None:
        mask = mask & (distance < check_size("window", window))  # (T, S)
    return mask
