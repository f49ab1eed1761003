"""`python -m wgnet` is `wgnet`."""

from wgnet.cli.main import run

run()
