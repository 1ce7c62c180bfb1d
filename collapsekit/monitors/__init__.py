"""Monitors: collapse told while a model trains, in a plain loop or under Lightning."""

from __future__ import annotations

from collapsekit.monitors.collapse_monitor import CollapseMonitor

__all__ = ["CollapseMonitor"]
