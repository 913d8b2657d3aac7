"""The registry of admission policies."""

from __future__ import annotations

from hermes_flow.config.registry import Registry
from hermes_flow.program.admission import AdmissionPolicy

admission_policies: Registry[AdmissionPolicy] = Registry(
    "admission policy", tag="policy", package=__package__, methods=("limits", "start")
)
