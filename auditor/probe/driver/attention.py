"""What FlashAttention computes, in plain PyTorch: scores, mask, softmax, sum. Slow, exact, differentiable.

Shapes: q is [batch, queries, heads, width], k and v are [batch, keys, key heads, width]; the variable-length form has
the sequences one after the other, [total, heads, width], cut at the cumulative lengths ``cu_seqlens``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from auditor.probe.driver.used import NoStandInError, note


def _attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool, window: tuple[int, int], softcap: float
) -> tuple[Tensor, Tensor]:
    """One batch of equally long sequences; also the log-sum-exp, [batch, heads, queries]."""
    queries, keys = q.shape[1], k.shape[1]
    repeat = q.shape[2] // k.shape[2]
    dtype = torch.float32 if q.dtype in (torch.bfloat16, torch.float16) else q.dtype
    # [batch, heads, length, width]
    a, b, c = (x.to(dtype).transpose(1, 2) for x in (q, k, v))
    if repeat > 1:
        b, c = b.repeat_interleave(repeat, dim=1), c.repeat_interleave(repeat, dim=1)
    scores = a @ b.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    left, right = window
    if causal:
        right = 0 if right < 0 else min(right, 0)
    # The last query stands at the last key, as in FlashAttention from 2.1 on.
    place = torch.arange(queries, device=q.device)[:, None] + (keys - queries)
    other = torch.arange(keys, device=q.device)[None, :]
    hidden = torch.zeros(queries, keys, dtype=torch.bool, device=q.device)
    if right >= 0:
        hidden |= other > place + right
    if left >= 0:
        hidden |= other < place - left
    scores = scores.masked_fill(hidden, -math.inf)
    total = torch.logsumexp(scores, dim=-1, keepdim=True)
    # A query that sees nothing gives zeros.
    weights = torch.exp(scores - total.masked_fill(total == -math.inf, 0.0))
    return (weights @ c).transpose(1, 2).to(v.dtype), total.squeeze(-1)


def _window(window: Any) -> tuple[int, int]:
    if window is None:
        return -1, -1
    left, right = window
    return -1 if left is None else int(left), -1 if right is None else int(right)


def _check(q: Tensor, k: Tensor, v: Tensor, unsupported: dict[str, Any]) -> None:
    for name, value in unsupported.items():
        if value is not None and value is not False:
            raise NoStandInError(f"flash attention with {name}")
    if q.shape[-2] % k.shape[-2] or k.shape[-2] != v.shape[-2]:
        raise RuntimeError(f"heads of queries ({q.shape[-2]}) must be a multiple of those of keys ({k.shape[-2]})")


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Any = (-1, -1),
    softcap: float = 0.0,
    qv: Any = None,
    alibi_slopes: Any = None,
    attention_chunk: int = 0,
    return_attn_probs: bool = False,
    return_softmax_lse: bool = False,
    **tuning: Any,
) -> Any:
    """``flash_attn_func`` of FlashAttention 2 and 3; ``tuning`` (num_splits, deterministic, ...) changes nothing."""
    note("stand-in for FlashAttention")
    _check(q, k, v, {"qv": qv, "alibi_slopes": alibi_slopes, "attention_chunk": attention_chunk or None})
    out, lse = _attend(q, k, v, softmax_scale, causal, _window(window_size), float(softcap or 0.0))
    return (out, lse) if return_attn_probs or return_softmax_lse else out


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: Any = None,
    max_seqlen_k: Any = None,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Any = (-1, -1),
    softcap: float = 0.0,
    seqused_q: Any = None,
    seqused_k: Any = None,
    qv: Any = None,
    alibi_slopes: Any = None,
    block_table: Any = None,
    attention_chunk: int = 0,
    return_attn_probs: bool = False,
    **tuning: Any,
) -> Any:
    """``flash_attn_varlen_func``: no query sees beyond its own sequence; what lies after the last one gives zeros."""
    note("stand-in for FlashAttention")
    unsupported = {"seqused_q": seqused_q, "seqused_k": seqused_k, "qv": qv, "alibi_slopes": alibi_slopes}
    _check(q, k, v, {**unsupported, "block_table": block_table, "attention_chunk": attention_chunk or None})
    ends_q, ends_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    pieces: list[Tensor] = []
    sums: list[Tensor] = []
    done = 0
    for start, end, start_k, end_k in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False):
        if end <= start:
            continue
        out, lse = _attend(
            q[None, start:end],
            k[None, start_k:end_k],
            v[None, start_k:end_k],
            softmax_scale,
            causal,
            _window(window_size),
            float(softcap or 0.0),
        )
        pieces.append(out[0])
        sums.append(lse[0])
        done = end
    if done < q.shape[0]:
        pieces.append(q.new_zeros(q.shape[0] - done, q.shape[1], v.shape[2]).to(v.dtype))
        sums.append(q.new_zeros(q.shape[1], q.shape[0] - done))
    whole = torch.cat(pieces)
    return (whole, torch.cat(sums, dim=-1)) if return_attn_probs else whole


def flash_attn_qkvpacked_func(qkv: Tensor, *args: Any, **options: Any) -> Any:
    """``flash_attn_qkvpacked_func``: q, k and v in dimension 2 of [batch, length, 3, heads, width]."""
    return flash_attn_func(*qkv.unbind(2), *args, **options)


def flash_attn_kvpacked_func(q: Tensor, kv: Tensor, *args: Any, **options: Any) -> Any:
    """``flash_attn_kvpacked_func``: k and v in dimension 2 of [batch, length, 2, heads, width]."""
    return flash_attn_func(q, *kv.unbind(2), *args, **options)


def flash_attn_3_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    *args: Any,
    **options: Any,
) -> Any:
    """``flash_attn_func`` of FlashAttention 3, whose order of arguments differs from 2's."""
    names = ("qv", "q_descale", "k_descale", "v_descale", "window_size", "attention_chunk", "softcap")
    options.update(zip(names, args, strict=False))
    return flash_attn_func(q, k, v, softmax_scale=softmax_scale, causal=causal, **options)


def flash_attn_3_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: Any = None,
    max_seqlen_k: Any = None,
    seqused_q: Any = None,
    seqused_k: Any = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    *args: Any,
    **options: Any,
) -> Any:
    """``flash_attn_varlen_func`` of FlashAttention 3."""
    names = ("qv", "q_descale", "k_descale", "v_descale", "window_size", "attention_chunk", "softcap")
    options.update(zip(names, args, strict=False))
    options.update(seqused_q=seqused_q, seqused_k=seqused_k, softmax_scale=softmax_scale, causal=causal)
    return flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options)
