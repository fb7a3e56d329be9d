"""FlashAttention 4's functions."""

from auditor.probe.stand_ins.flash_attn.cute import flash_attn_func, flash_attn_varlen_func

__all__ = ["flash_attn_func", "flash_attn_varlen_func"]
