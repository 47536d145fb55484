"""What jieba's paddle mode and LAC make of sentences, as JSON; the same script under both frameworks.

Recording with PaddlePaddle 1.8.5 (the files beside it), each in a process of its own, because what 1.8.5 answers for
"rank" depends on which predictors the process made before (alone, it agrees with itself without graph passes):
    for part in jieba seg lac rank; do OMP_NUM_THREADS=1 <its python> analyse.py recorded/$part.json --only $part; done
Comparing on many sentences: run it under both interpreters with --text FILE --count N and compare the outputs.
"""

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from sentences import from_file, small_set


def jieba_results(sentences):
    import jieba
    import jieba.posseg

    jieba.enable_paddle()
    found = []
    for sentence in sentences:
        try:
            words = list(jieba.cut(sentence, use_paddle=True))
            tagged = [[pair.word, pair.flag] for pair in jieba.posseg.cut(sentence, use_paddle=True)]
        except Exception as error:
            words, tagged = "error", type(error).__name__ if "paddle" not in type(error).__module__ else "EnforceNotMet"
        found.append([words, tagged])
    return found


def lac_results(sentences, modes):
    from LAC import LAC

    found = {}
    for mode in modes:
        analyser = LAC(mode=mode)
        one_by_one = []
        for sentence in sentences:
            try:
                one_by_one.append(analyser.run(sentence))
            except Exception as error:
                one_by_one.append(f"error {type(error).__name__}")
        batches = []
        for start in range(0, len(sentences), 16):
            try:
                batches.append(analyser.run(list(sentences[start : start + 16])))
            except Exception as error:
                batches.append(f"error {type(error).__name__}")
        found[mode] = [one_by_one, batches]
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--millstream", action="store_true")
    parser.add_argument("--only", choices=("jieba", "seg", "lac", "rank"), nargs="+", required=True)
    options = parser.parse_args()
    if options.millstream:
        from millstream import paddle_alias

        paddle_alias.install()
    sentences = small_set()
    for path in options.text:
        sentences += from_file(path, options.count // len(options.text))
    result = {"sentences": sentences}
    if "jieba" in options.only:
        result["jieba"] = jieba_results(sentences)
    modes = [part for part in options.only if part != "jieba"]
    if modes:
        result["lac"] = lac_results(sentences, modes)
    with open(options.out, "w") as target:
        json.dump(result, target, ensure_ascii=True, separators=(",", ":"), sort_keys=True)


if __name__ == "__main__":
    main()
