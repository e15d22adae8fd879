"""YAML as people write it."""

from __future__ import annotations

from typing import Any

import yaml


def to_yaml(value: Any) -> str:
    """Keys in the order given, no anchors, no type tags."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  yaml's signature
        return True
