"""Metrics as Prometheus reads them."""

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """The value of every sample, by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(told: Samples, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    wanted = labels.items()
    return sum(v for (n, has), v in told.items() if n == name and wanted <= dict(has).items())


def labels(told: Samples, name: str, label: str) -> set[str]:
    """The values of a label."""
    return {dict(has)[label] for n, has in told if n == name}


def counters(told: Samples) -> Iterable[tuple[str, frozenset[tuple[str, str]]]]:
    """What never goes backwards."""
    return (key for key in told if key[0].endswith(("_total", "_count", "_sum", "_bucket")))
