"""Measures workloads: all peers in turn in one run, from common parameters, with their losses compared."""

import importlib
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack

from bench.peers import INTERPRETERS, LeftOut, Peer, installed, write_parameters

# Relative difference of losses that still counts as the same network: of the first step, which only the arithmetic's
# order can move, and of the next ones, which training amplifies. A workload may state its own.
TOLERANCE = (1e-4, 1e-2)
# 1.8.5's CPU kernels cut the gradient of dynamic_lstm short, and so does millstream unless told otherwise. A workload
# with LSTM_GRADIENT also runs millstream with the derivative, which is what the peers other than 1.8.5 compute.
DERIVATIVE = "millstream-derivative"
LIKE_FLUID = ("millstream", "fluid")
CAPTURED, BFLOAT16 = "millstream-captured", "millstream-bfloat16"
TOLERANCE_BFLOAT16 = (1e-2, 0.15)


def module_of(workload):
    return importlib.import_module(f"workloads.{workload}")


def ours_for(name, by_name):
    """The millstream that peer `name` is compared with in time."""
    chosen = None if name in (*LIKE_FLUID, CAPTURED, BFLOAT16) else by_name.get(DERIVATIVE)
    if name == "torch-compiled":
        chosen = by_name.get(CAPTURED) or chosen
    return chosen or by_name.get("millstream")


def reference_for(name, by_name):
    """The peer whose losses `name` must repeat: 1.8.5 where it runs and computes the same, else millstream."""
    if name not in (*LIKE_FLUID, CAPTURED, BFLOAT16) and DERIVATIVE in by_name:
        return by_name[DERIVATIVE]
    return by_name.get("fluid") or by_name.get("millstream")


def tolerance(workload, peer):
    """(first step, later steps) for `peer`: TOLERANCE of the workload's module, {peer: (first, later)}, or ours."""
    own = getattr(module_of(workload), "TOLERANCE", {})
    return own.get(peer, TOLERANCE_BFLOAT16 if peer == BFLOAT16 else own.get("all", TOLERANCE))


def disagreement(ours, theirs, allowed):
    """"" or what differs between two lists of losses."""
    for step, (a, b) in enumerate(zip(ours, theirs)):
        limit = allowed[min(step, 1)]
        difference = abs(a - b) / max(abs(a), abs(b), 1e-12)
        if not difference <= limit:  # NaN is a disagreement too
            return f"step {step + 1}: {b:.7g} for {a:.7g}, {difference:.1e} apart, allowed {limit:.0e}"
    return ""


def start(workload, names, path, threads, stack):
    """(running peers, {name: why it is left out}, {name: how it failed})."""
    running, left_out, failed = [], {}, {}
    for name in names:
        log = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
        try:
            peer = Peer(workload, name, path, threads, log)
        except LeftOut as reason:
            left_out[name] = str(reason)
        except (RuntimeError, OSError) as error:
            failed[name] = str(error)
        else:
            stack.callback(peer.close)
            running.append(peer)
    return running, left_out, failed


def measure(workload, names=tuple(INTERPRETERS), rounds=7, threads=2, seconds=0.5):
    """Result of one workload.

    Args:
        rounds: how often each peer has its turn.
        seconds: about how long one turn of the slowest peer takes.

    Returns {"workload", "rows": [one dict a peer], "left_out": {peer: reason}, "failed": {peer: error}}.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = os.path.join(folder, "parameters.npz")
        names = [n for n in names if n != DERIVATIVE or hasattr(module_of(workload), "LSTM_GRADIENT")]
        if any(installed(n) for n in names):
            write_parameters(workload, path, threads)
        running, left_out, failed = start(workload, names, path, threads, stack)
        for _ in range(rounds):
            for peer in running:
                # As many steps for a fast peer as fit into the same time, within reason.
                peer.round(max(1, min(1000, int(1000 * seconds / peer.ms))))
        return {
            "workload": workload,
            "rows": rows(workload, running),
            "left_out": left_out,
            "failed": failed,
            "threads": threads,
        }


def rows(workload, running):
    """What was measured, one dict a peer; `agrees` is "" or the disagreement."""
    by_name = {p.name: p for p in running}
    found = []
    for peer in running:
        ratio, ours, reference = None, ours_for(peer.name, by_name), reference_for(peer.name, by_name)
        variant = peer.name in (CAPTURED, BFLOAT16)
        if ours is not None and (variant or not peer.name.startswith("millstream")) and peer.medians:
            ratio = statistics.median(a / b for a, b in zip(ours.medians, peer.medians))
        allowed = tolerance(workload, peer.name)
        differs = "" if reference in (None, peer) else disagreement(reference.losses, peer.losses, allowed)
        found.append(
            {
                "peer": peer.name,
                "ms": statistics.median(peer.medians) if peer.medians else None,
                "rounds": peer.medians,
                "cpu_ms": statistics.median(peer.cpu) if peer.cpu else None,
                "ours_over_peer": ratio,
                "first_s": peer.first_s,
                "base_mib": peer.base,
                "peak_mib": peer.peak,
                "losses": peer.losses,
                "reference": reference.name if reference is not None else None,
                "tolerance": list(allowed),
                "disagreement": differs,
            }
        )
    return found


def measure_all(workloads, names, rounds, threads, seconds, show):
    """Results of all; `show` is called with each as it comes."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    results = []
    for workload in workloads:
        try:
            result = measure(workload, names, rounds, threads, seconds)
        except RuntimeError as error:
            result = {"workload": workload, "rows": [], "left_out": {}, "threads": threads}
            result["failed"] = {"millstream": str(error)}
        results.append(result)
        show(result)
    return results


def sound(results):
    """Whether every peer that was started ran and agreed."""
    return all(not r["failed"] and all(not row["disagreement"] for row in r["rows"]) for r in results)
