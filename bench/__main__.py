"""`python -m bench [section …]`: run the sections, print each figure beside its target, write build/bench.json."""

import json
import os
import platform
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import uvloop

from bench import models, sections, service

TARGETS = {
    "submit_per_s": (">=", 4000),
    "submit_over_echo": (">=", 0.5),
    "submit_p99_ms": ("<=", 60),
    "job_p50_ms": ("<=", 15),
    "job_p99_ms": ("<=", 60),
    "jobs_per_s": (">=", 800),
    "embedded_overhead": ("<=", 1.05),
    "image_s": ("<=", 2),
    "upscale_s": ("<=", 1.5),
    "clip_s": ("<=", 20),
    "engine_rss_mb": ("<=", 700),
    "engine_load_s": ("<=", 1.5),
    "ort_efficiency": ("<=", 1.05),
    "ready_s": ("<=", 2),
    "api_rss_mb": ("<=", 200),
    "list_1m_over_1k": ("<=", 1.25),
    "deliveries_per_s": (">=", 2000),
    "hang_delays_others_ms": ("<=", 50),
    "listeners_1k_mb": ("<=", 60),
    "submit_p99_full_over_idle": ("<=", 1.5),
}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    """Run the named sections, or all."""
    every: dict[str, Callable[[], Coroutine[None, None, sections.Figures]]] = {
        "submits": sections.submits,
        "jobs": sections.jobs,
        "embedded": models.embedded,
        "listing": sections.listing,
        "deliveries": sections.deliveries,
        "listening": sections.listening,
    }
    chosen = sys.argv[1:] or list(every)
    # The load generator takes the last core; services that are measured on one core take the first.
    os.sched_setaffinity(0, {service.CORES[-1]})
    figures: sections.Figures = {}
    for name in chosen:
        print(f"… {name}", file=sys.stderr, flush=True)
        figures |= uvloop.run(every[name]())
    machine = {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    print(f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}")
    for name, value in figures.items():
        sign, target = TARGETS.get(name, ("", None))
        met = "" if target is None else ("ok" if (value >= target if sign == ">=" else value <= target) else "MISSED")
        print(f"{name:20} {value:12.3f}   {sign:2} {'' if target is None else target!s:6} {met}")
    out = Path("build/bench.json")
    out.parent.mkdir(exist_ok=True)
    kept = json.loads(out.read_text()) if sys.argv[1:] and out.exists() else {}
    out.write_text(json.dumps(kept | {"machine": machine} | figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
