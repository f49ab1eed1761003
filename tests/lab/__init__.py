"""The lab: every example on real kernels under every manager, in an emulated machine."""
