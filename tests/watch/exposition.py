"""Metrics as Prometheus reads them."""

from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Parse the text format: the value of every sample, by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(counts: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples that have these labels."""
    wanted = labels.items()
    return sum(v for (n, has), v in counts.items() if n == name and wanted <= dict(has).items())


def labels(counts: Samples, name: str, label: str) -> set[str]:
    """Return the values of a label."""
    return {dict(has)[label] for n, has in counts if n == name}


def counters(counts: Samples) -> Iterable[tuple[str, frozenset[tuple[str, str]]]]:
    """Return the samples that never decrease."""
    return (key for key in counts if key[0].endswith(("_total", "_count", "_sum", "_bucket")))
