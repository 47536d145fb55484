"""Results as Markdown, JSON and a chart."""

import json
import os
import platform

from bench.peers import TITLES

COLUMNS = (
    "workload", "peer", "ms a step", "spread", "millstream / peer", "cpu ms", "first step s", "peak MiB", "above import",
    "losses",
)  # fmt: skip
COLOURS = {
    "fluid": "#c0392b",
    "paddle3": "#e67e22",
    "torch": "#2c7fb8",
    "torch-compiled": "#7fcdbb",
    "jax": "#8e6bbf",
}


def cells(workload, row):
    times = row["rounds"]
    if row["reference"] == row["peer"]:
        losses = "reference"
    elif row["reference"] is None:
        losses = ""
    else:
        first, later = row["tolerance"]
        losses = f"agree ({first:.0e}, {later:.0e})" if not row["disagreement"] else f"DISAGREE: {row['disagreement']}"
    ratio = "" if row["ours_over_peer"] is None else f"{row['ours_over_peer']:.3f}"
    timed = [f"{row['ms']:.3f}", f"{min(times):.3f} - {max(times):.3f}"] if times else ["", ""]
    cpu = f"{row['cpu_ms']:.3f}" if times else ""
    memory = [str(row["peak_mib"]), str(row["peak_mib"] - row["base_mib"])] if times else ["", ""]
    return [workload, row["peer"], *timed, ratio, cpu, f"{row['first_s']:.2f}", *memory, losses]


def markdown(results):
    """The table, and below it who is missing and why."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- " * len(COLUMNS) + "|"]
    for result in results:
        for row in result["rows"]:
            lines.append("| " + " | ".join(cells(result["workload"], row)) + " |")
    notes = []
    for result in results:
        notes += [f"- {result['workload']}: {peer} FAILED: {error}" for peer, error in result["failed"].items()]
    reasons = {}
    for result in results:
        for peer, reason in result["left_out"].items():
            reasons.setdefault((peer, reason), []).append(result["workload"])
    notes += [f"- {peer} left out of {', '.join(names)}: {reason}" for (peer, reason), names in reasons.items()]
    return "\n".join(lines + ([""] + notes if notes else []))


def machine():
    """What the figures were measured on."""
    model = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), model)
    except OSError:
        pass
    return {"processor": model, "cores": os.cpu_count(), "system": platform.platform()}


def chart(results, path):
    """Bars of each peer's time over millstream's, one group a workload; the ending of `path` says the format."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("the chart needs matplotlib: pip install 'millstream[bench]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = [r for r in results if any(row["ours_over_peer"] for row in r["rows"])]
    names = [n for n in COLOURS if any(row["peer"] == n and row["ours_over_peer"] for r in drawn for row in r["rows"])]
    tall = 1.2 + max(1, len(drawn)) * (0.25 + 0.16 * len(names))
    figure, axes = pyplot.subplots(figsize=(7.5, tall), layout="constrained")
    height = 0.8 / max(1, len(names))
    for k, name in enumerate(names):
        for at, result in enumerate(drawn):
            row = next((r for r in result["rows"] if r["peer"] == name and r["ours_over_peer"]), None)
            if row is None:
                continue
            times = 1 / row["ours_over_peer"]
            label = TITLES[name] if name not in axes.get_legend_handles_labels()[1] else None
            wrong = bool(row["disagreement"])
            y = at + (k - (len(names) - 1) / 2) * height
            axes.barh(y, times, height * 0.9, color=COLOURS[name], label=label, hatch="///" if wrong else None)
            axes.text(times * 1.03, y, f"{times:.2f}x" + (" (numbers differ)" if wrong else ""), va="center", fontsize=7)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    axes.axvline(1.0, color="#1f2933", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_yticks(range(len(drawn)), [r["workload"] for r in drawn])
    axes.invert_yaxis()
    axes.set_xlabel("time of a step over millstream's (log scale; right of 1: millstream is faster)")
    if unique:
        figure.legend(unique.values(), unique.keys(), fontsize=8, loc="outside lower center", ncols=5)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def write(results, folder):
    """results.md, results.json, results.svg and results.png in `folder`."""
    os.makedirs(folder, exist_ok=True)
    where = machine()
    head = f"Medians on {where['processor']}, {where['cores']} cores.\n\n"
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as out:
        json.dump({"machine": where, "results": results}, out, indent=1)
    with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as out:
        out.write(head + markdown(results) + "\n")
    for ending in ("svg", "png"):
        chart(results, os.path.join(folder, "results." + ending))
