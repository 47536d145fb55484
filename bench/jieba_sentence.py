"""Time of one jieba sentence (paddle mode) under millstream and, where it is there, under PaddlePaddle 1.8.5.

    python bench/jieba_sentence.py [--paddle PYTHON] [--rounds N] [--join N] [--threads N]

PYTHON is an interpreter with PaddlePaddle 1.8.5 and jieba (default: MILLSTREAM_ORACLE_PYTHON). The two run in turns,
round by round, over the same sentences with one thread each (or --threads); figures are medians over rounds of the mean a
sentence.
With --join, N sentences make one. The whole call counts: dictionary look-ups and parsing in jieba, and the network.
"""


import argparse
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "tests", "apps"))

from sentences import OWN  # noqa: E402


def joined(count):
    """The sentences, `count` at a time put together."""
    return ["".join(OWN[i : i + count]) for i in range(0, len(OWN), count)]


def worker(framework, sentences):
    """Answer each line on stdin with the seconds that one pass over the sentences took."""
    if framework == "millstream":
        sys.path.insert(0, os.path.dirname(HERE))
        from millstream import paddle_alias

        paddle_alias.install()
    import jieba

    out, sys.stdout = sys.stdout, sys.stderr  # jieba prints
    jieba.enable_paddle()
    for _ in range(3):
        for sentence in sentences:
            list(jieba.cut(sentence, use_paddle=True))
    print("ready", file=out)
    out.flush()
    for _ in sys.stdin:
        start = time.time()
        for sentence in sentences:
            list(jieba.cut(sentence, use_paddle=True))
        print(time.time() - start, file=out)
        out.flush()


def median(values):
    values = sorted(values)
    return values[len(values) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--paddle", default=os.environ.get("MILLSTREAM_ORACLE_PYTHON"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--join", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", choices=("millstream", "paddle"))
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, joined(options.join))
        return
    sentences = joined(options.join)
    sides = {"millstream": sys.executable}
    if options.paddle:
        sides["paddle"] = options.paddle
    environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads))
    workers, seconds = {}, {name: [] for name in sides}
    try:
        for name, python in sides.items():
            command = [python, os.path.abspath(__file__), "--worker", name, "--join", str(options.join)]
            workers[name] = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                universal_newlines=True,
            )
            if workers[name].stdout.readline().strip() != "ready":
                raise SystemExit(f"{name}: the worker did not start")
        for _ in range(options.rounds):
            for name, process in workers.items():
                process.stdin.write("go\n")
                process.stdin.flush()
                seconds[name].append(float(process.stdout.readline()) / len(sentences))
    finally:
        for process in workers.values():
            process.stdin.close()
            process.wait()
    result = {name + "_ms": round(1e3 * median(values), 3) for name, values in seconds.items()}
    if len(sides) == 2:
        result["ratio"] = round(median([a / b for a, b in zip(seconds["millstream"], seconds["paddle"])]), 3)
    result["characters"] = sum(map(len, sentences)) / float(len(sentences))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
