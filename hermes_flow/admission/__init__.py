"""Admission policies: what the gateway in front of a cluster lets in, and in which order. Each module is one."""

from __future__ import annotations

from hermes_flow.admission.registry import admission_policies

__all__ = ["admission_policies"]
