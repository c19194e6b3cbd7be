"""What was measured, as a table (the ratio first), as JSON and as a drawing."""

from __future__ import annotations

import html
import json
import os
import platform
import time
from collections.abc import Sequence
from typing import Any

from tests.bench.measure import Timing

Results = Sequence[tuple[str, Sequence[Timing]]]


def ratios(timings: Sequence[Timing]) -> list[tuple[Timing, float | None]]:
    """Each peer with our median over its median, None where either is missing."""
    ours = timings[0]
    return [(peer, None if ours.missing or peer.missing else ours.median / peer.median) for peer in timings[1:]]


def table(results: Results) -> str:
    """The table for people: ratio, then both medians with the middle half of the runs."""
    lines = [f"{'ratio':>6}  {'work':44} {'hutch':>22}  {'peer':>22}"]
    for title, timings in results:
        for peer, ratio in ratios(timings):
            shown = "-" if ratio is None else f"{ratio:.2f}"
            lines.append(f"{shown:>6}  {title:44} {_times(timings[0]):>22}  {_times(peer):>22}  {peer.name}")
        if len(timings) == 1:
            lines.append(f"{'':>6}  {title:44} {_times(timings[0]):>22}")
        lines += [f"{'':8}{timing.name} is missing: {timing.missing}" for timing in timings if timing.missing]
    return "\n".join(lines)


def _times(timing: Timing) -> str:
    if timing.missing:
        return "missing"
    low, high = timing.spread
    if timing.unit != "s":
        return f"{timing.median:.2f} {timing.unit} [{low:.2f}-{high:.2f}]"
    if timing.median >= 1:
        return f"{timing.median:.2f} s [{low:.2f}-{high:.2f}]"
    return f"{timing.median * 1e3:.1f} ms [{low * 1e3:.1f}-{high * 1e3:.1f}]"


def document(results: Results, versions: dict[str, str]) -> dict[str, Any]:
    """Everything measured, every run of it, for later comparison."""
    return {
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
        },
        "versions": versions,
        "rows": [
            {
                "work": title,
                "contenders": [
                    {
                        "name": timing.name,
                        "unit": timing.unit,
                        "seconds": timing.seconds,
                        "median_s": None if timing.missing else timing.median,
                        "missing": timing.missing,
                    }
                    for timing in timings
                ],
                "ratios": {peer.name: ratio for peer, ratio in ratios(timings)},
            }
            for title, timings in results
        ],
    }


def drawing(results: Results) -> str:
    """An SVG: one bar a ratio, the line at 1 being the peer; shorter is faster."""
    bars = [(title, peer.name, ratio) for title, timings in results for peer, ratio in ratios(timings) if ratio]
    left, width, step = 330, 380, 26
    scale = width / max([1.25, *(ratio for _, _, ratio in bars)])
    height = step * len(bars) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 70} {height}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{left + width + 70}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="16" fill="#555">time of hutch / time of the peer (shorter is faster)</text>',
    ]
    for place, (title, name, ratio) in enumerate(bars):
        y = 30 + place * step
        colour = "#2a7de1" if ratio <= 1 else "#c2632d"
        parts += [
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end" fill="#222">{html.escape(f"{title}, {name}")}</text>',
            f'<rect x="{left}" y="{y}" width="{ratio * scale:.1f}" height="{step - 8}" rx="2" fill="{colour}"/>',
            f'<text x="{left + ratio * scale + 6:.1f}" y="{y + 13}" fill="#222">{ratio:.2f}</text>',
        ]
    x = left + scale
    parts.append(f'<line x1="{x:.1f}" y1="24" x2="{x:.1f}" y2="{height - 16}" stroke="#222" stroke-dasharray="3 3"/>')
    return "\n".join([*parts, "</svg>", ""])


def write(results: Results, versions: dict[str, str], directory: str) -> None:
    """Write bench.json, bench.svg and bench.txt."""
    os.makedirs(directory, exist_ok=True)
    texts = {
        "bench.json": json.dumps(document(results, versions), indent=2) + "\n",
        "bench.svg": drawing(results),
        "bench.txt": table(results) + "\n",
    }
    for name, text in texts.items():
        with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
