"""Builds a release, proves that it can be reproduced, and runs it from an empty environment: `make release`."""
