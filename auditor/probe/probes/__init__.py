"""The probes: one file each with one subclass of :class:`auditor.probe.base.Probe`, found by itself."""
