"""Soak: eight threads use clones of one predictor for minutes; every answer must be right and memory must stay flat.

    python -m bench.predictor_soak [MODEL[:ENGINE] …] [--minutes 10] [--threads 8] [--warm 0.1] [--tolerance 0.01]

Without models it runs mobilenet:onnxruntime and lac:native (sequences of lengths that change, LoD in and out), each in a
process of its own. Every thread has requests of its own, whose answers are known from before. Resident memory is read
twice a second after a warm-up (a share of the time); the highest of the last fifth may be at most `tolerance` above the
highest of the first fifth. The exit status is 1 when an answer is wrong, a thread fails or memory grows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

from bench.peers import HERE, environment
from bench.soak import growth, resident

DEFAULT = ("mobilenet:onnxruntime", "lac:native")
REQUESTS = 4


def requests_of(name, models):
    """Requests that differ from each other, some in their sizes; of packages' models all sentences, and some together."""
    if name in models.PACKAGED:
        return models.requests(name, 1) + models.requests(name, 5)
    found = []
    for k in range(REQUESTS):
        feed = models.request(name, 1 + k % 2)
        if name == "lac":
            feed = {"words": [np.roll(w, k)[: len(w) - 3 * k - i] for i, w in enumerate(feed["words"])]}
        else:
            feed = {n: np.roll(a, k, -1) for n, a in feed.items()}
        found.append(feed)
    return found


def same(found, wanted):
    """Whether results are equal (numbers to 1e-4), LoDs included."""
    for name, want in wanted.items():
        mine = found[name]
        lods = [t.recursive_sequence_lengths() if hasattr(t, "recursive_sequence_lengths") else None for t in (mine, want)]
        if lods[0] != lods[1] or not np.allclose(np.asarray(mine), np.asarray(want), rtol=1e-4, atol=1e-5):
            return False
    return True


def soak(name, engine, minutes, threads, warm):
    """In the worker: {"answers", "wrong", "failed", "memory": [MiB], "engine"}."""
    sys.path[:0] = [HERE, os.path.dirname(HERE)]
    import inference_models as models

    import millstream

    answers, wrong, failed, samples = [0] * threads, [0] * threads, [], []
    with tempfile.TemporaryDirectory() as folder:
        models.save(name, folder)
        model = millstream.load(folder, engine=engine, remember=False, threads=1)
        feeds = requests_of(name, models)
        native = millstream.load(folder, threads=1)
        wanted = [native.run(feed) for feed in feeds]
        begin = time.monotonic()
        end = begin + 60 * minutes

        def work(k):
            mine, turn = model.clone(), k * len(feeds) // threads
            try:
                while time.monotonic() < end:
                    turn = (turn + 1) % len(feeds)
                    wrong[k] += not same(mine.run(feeds[turn]), wanted[turn])
                    answers[k] += 1
            except Exception as error:  # whatever it is, it is the result
                failed.append(f"thread {k}: {type(error).__name__}: {error}")

        workers = [threading.Thread(target=work, args=(k,)) for k in range(threads)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            if time.monotonic() - begin >= 60 * minutes * warm:
                samples.append(resident())
            time.sleep(0.5)
        used = model.engine_for(feeds[0])
    return {"answers": answers, "wrong": sum(wrong), "failed": failed, "memory": samples, "engine": used}


def run(what, options):
    command = [sys.executable, "-m", "bench.predictor_soak", what, "--worker", "--minutes", str(options.minutes)]
    command += ["--threads", str(options.threads), "--warm", str(options.warm)]
    done = subprocess.run(command, env=environment(1), cwd=os.path.dirname(HERE), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-800:])
    return json.loads(done.stdout.splitlines()[-1])


def verdict(result, tolerance):
    """What to say of it: right and flat, or what is wrong."""
    if result["failed"]:
        return f"FAILED: {result['failed'][0]}"
    if result["wrong"]:
        return f"{result['wrong']} WRONG"
    if min(result["answers"]) == 0:
        return "a thread had NO ANSWER"
    return "right and flat" if growth(result["memory"]) <= tolerance else "GROWS"


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.predictor_soak", description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL[:ENGINE]", help=f"{' '.join(DEFAULT)} when left out")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each (%(default)s)")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--warm", type=float, default=0.1, help="share of the time that is warm-up (%(default)s)")
    parser.add_argument("--tolerance", type=float, default=0.01, help="growth that is allowed (%(default)s)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.threads < 1 or options.minutes <= 0:
        parser.error("--threads must be 1 or more, --minutes above 0")
    if options.worker:
        name, _, engine = options.models[0].partition(":")
        print(json.dumps(soak(name, engine or "auto", options.minutes, options.threads, options.warm)))
        return 0
    bad = 0
    print("| model | engine | answers | MiB at first | MiB at last | growth | |\n" + "| --- " * 7 + "|")
    for what in options.models or DEFAULT:
        try:
            result = run(what, options)
        except RuntimeError as error:
            bad += 1
            print(f"| {what} | | | | | | FAILED: {' '.join(str(error).split())} |", flush=True)
            continue
        memory, found = result["memory"], verdict(result, options.tolerance)
        bad += found != "right and flat"
        figures = f"{memory[0]:.1f} | {memory[-1]:.1f} | {100 * growth(memory):+.2f} %"
        print(f"| {what} | {result['engine']} | {sum(result['answers'])} | {figures} | {found} |", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
