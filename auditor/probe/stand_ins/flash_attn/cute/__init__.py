"""FlashAttention 4's package, which takes 3's arguments."""

from auditor.probe.driver.attention import flash_attn_3_func as flash_attn_func
from auditor.probe.driver.attention import flash_attn_3_varlen_func as flash_attn_varlen_func

__all__ = ["flash_attn_func", "flash_attn_varlen_func"]
