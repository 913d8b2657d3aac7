"""Policies that choose the site of each request; see program/sites.py for their contract."""

from __future__ import annotations

from hermes_flow.config.registry import Registry
from hermes_flow.program.sites import SitePolicy

site_policies: Registry[SitePolicy] = Registry(
    "site policy", tag="policy", package=__name__, methods=("start",)
)
