"""Hugging Face's ``kernels``, which downloads compiled kernels: FlashAttention by its name, nothing else."""

from __future__ import annotations

import types
from typing import Any

from auditor.probe.driver import attention
from auditor.probe.driver.used import NoStandInError


def get_kernel(repo_id: str, *args: Any, **options: Any) -> Any:
    """The functions of the FlashAttention that ``repo_id`` names."""
    name = repo_id.lower().replace("_", "-")
    if "flash-attn" not in name:
        raise NoStandInError(f"the kernel {repo_id}")
    third = "flash-attn3" in name or "flash-attn4" in name
    found = types.SimpleNamespace(
        flash_attn_func=attention.flash_attn_3_func if third else attention.flash_attn_func,
        flash_attn_varlen_func=attention.flash_attn_3_varlen_func if third else attention.flash_attn_varlen_func,
        flash_attn_qkvpacked_func=attention.flash_attn_qkvpacked_func,
    )
    found.flash_attn_interface = found
    return found


def has_kernel(repo_id: str, *args: Any, **options: Any) -> bool:
    """Whether there is such a kernel."""
    return "flash" in repo_id.lower()
