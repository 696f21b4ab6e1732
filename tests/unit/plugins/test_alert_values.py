# SPDX-License-Identifier: GPL-3.0-or-later
"""Values in words; that Prometheus writes the same is proven by promtool in test_alert_proof."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_values as values

from tests.unit.plugins.test_alert_proof import judged

CASES = [
    (0.7123456, "ratio", "71.23%"),
    (1.0, "ratio", "100%"),
    (0.0, "ratio", "0%"),
    (93784.6, "seconds", "1d 2h 3m 4s"),
    (3600.0, "seconds", "1h 0m 0s"),
    (61.0, "seconds", "1m 1s"),
    (59.5, "seconds", "59.5s"),
    (-90.0, "seconds", "-1m 30s"),
    (0.25, "seconds", "250ms"),
    (-0.0000015, "seconds", "-1.5us"),
    (0.0, "seconds", "0s"),
    (536870912.0, "bytes", "512MiB"),
    (1023.0, "bytes", "1023B"),
    (0.5, "bytes", "0.5B"),
    (1.5 * 2**40, "bytes", "1.5TiB"),
    (2.5, "count", "2"),
    (1234567.0, "count", "1234567"),
    (0.00001234, "none", "1.234e-05"),
    (123456.0, "none", "1.235e+05"),
    (float("inf"), "none", "+Inf"),
]


@pytest.mark.parametrize(("value", "unit", "text"), CASES)
def test_values_in_words(value: float, unit: str, text: str) -> None:
    assert values.written(value, unit) == text


def test_prometheus_writes_the_same() -> None:
    """One alarm for each case, whose text is the value."""
    rules, tests = [], []
    for position, (value, unit, text) in enumerate(CASES):
        rules.append({"alert": f"V{position}", "expr": f"v{position}", "annotations": {"text": values.template("{value}", unit)}})
        shown = {"exp_annotations": {"text": text}}
        written = str(value).replace("inf", "+Inf")
        tests.append({
            "interval": "1m", "input_series": [{"series": f"v{position}", "values": written}],
            "alert_rule_test": [{"eval_time": "0m", "alertname": f"V{position}", "exp_alerts": [shown]}],
        })  # fmt: skip
    content = {
        "rules.yml": yaml.safe_dump({"groups": [{"name": "values", "rules": rules}]}),
        "tests.yml": yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}),
    }
    assert judged("debian12", content) == "" == judged("debian13", content)


def test_a_sentence() -> None:
    text = "{mountpoint} on {host} is {value} full; {unknown}."
    assert values.sentence(text, "ratio", "h", {"mountpoint": "/a", "value": "no"}, 0.5) == "/a on h is 50% full; ."
    assert values.template(text, "ratio") == (
        "{{ $labels.mountpoint }} on {{ $labels.host }} is {{ $value | humanizePercentage }} full; {{ $labels.unknown }}."
    )
