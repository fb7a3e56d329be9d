"""FlashAttention 3's module."""

from auditor.probe.driver.attention import flash_attn_3_func as flash_attn_func
from auditor.probe.driver.attention import flash_attn_3_varlen_func as flash_attn_varlen_func
from auditor.probe.driver.attention import flash_attn_qkvpacked_func

__all__ = ["flash_attn_func", "flash_attn_qkvpacked_func", "flash_attn_varlen_func"]
