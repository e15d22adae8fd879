"""One version: what is installed, what the charts install, what jobs ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trainserve import __version__
from trainserve.kube import names

HELM = Path(__file__).parents[2] / "helm"
CHARTS = sorted(path.parent.name for path in HELM.glob("*/Chart.yaml"))


def test_there_are_charts() -> None:
    assert "platform-operator" in CHARTS


@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_is_of_the_version_that_is_installed(chart: str) -> None:
    told = yaml.safe_load((HELM / chart / "Chart.yaml").read_text())
    where = f"helm/{chart}/Chart.yaml, where platform/trainserve/__init__.py says {__version__}"
    assert told["appVersion"] == __version__, f"appVersion in {where}: docs/how-to/build-images.md, a release"
    assert told["version"] == __version__, f"version in {where}: docs/how-to/build-images.md, a release"


def test_the_operators_chart_installs_the_image_that_is_built() -> None:
    image = yaml.safe_load((HELM / "platform-operator/values.yaml").read_text())["image"]
    assert f"{image['repository']}:{image['tag'] or __version__}" == names.image_for(names.IMAGE_OPERATOR)
    assert image["digest"] == ""
