"""The results as a table: medians, and the least and the most of the samples in brackets."""

from collections.abc import Sequence
from statistics import median

from rich.table import Table

from tests.benchmarks.peers.contender import LIMIT, Result

#: Look-ups are many: the middle nine tenths show their spread.
FEW = 20
KIB = 1024


def table(results: Sequence[Result]) -> Table:
    """One line for each contender."""
    shown = Table(
        "",
        "settings",
        "daemons",
        "spawned a second",
        "memory of one",
        "look-up",
        "main process killed",
        "all killed",
        title="median (least–most)",
        show_lines=True,
    )
    for result in results:
        shown.add_row(
            result.title,
            result.setting,
            str(result.count),
            spread(result.per_second, ""),
            _memory(result.bytes_each),
            "\n".join(f"{label} {_time(samples)}" for label, samples in result.look_up_s.items()),
            *(_away(result, fault) for fault in ("main", "all")),
        )
    return shown


def spread(samples: Sequence[float], unit: str, scale: float = 1.0) -> str:
    """Say a median and the ends, to three digits."""
    scaled = sorted(sample * scale for sample in samples)
    if len(scaled) > FEW:
        scaled = scaled[len(scaled) // FEW : -(len(scaled) // FEW)]
    middle, least, most = (_digits(value) for value in (median(scaled), scaled[0], scaled[-1]))
    ends = f" ({least}–{most})" if len(scaled) > 1 else ""
    return f"{middle}{ends} {unit}".strip()


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _memory(samples: Sequence[float]) -> str:
    large = median(list(samples)) > KIB * KIB
    return spread(samples, "MB", 1e-6) if large else spread(samples, "KiB", 1 / KIB)


def _time(samples: Sequence[float]) -> str:
    return spread(samples, "s") if median(list(samples)) > 0.1 else spread(samples, "µs", 1e6)


def _away(result: Result, fault: str) -> str:
    if fault not in result.away_s:
        return "the same" if result.falls_whole else "not tried"
    back = [seconds for seconds in result.away_s[fault] if seconds is not None]
    said = [spread(back, "s")] if back else []
    if len(back) < len(result.away_s[fault]):
        said.append(f"not back within {LIMIT:g} s")
    return "; ".join(said)
