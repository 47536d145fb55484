"""Record what each layer of PaddlePaddle 1.8.5 appends to a Program: recorded/layer_names.json.

OMP_NUM_THREADS=1 <python with paddlepaddle 1.8.5> record_layers.py [id prefix]
"""

import json
import os
import sys
import traceback

import paddle.fluid as fluid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from layer_cases.inputs import INPUTS  # noqa: E402
from layer_trace import FAMILIES, read_cases, trace  # noqa: E402


def main():
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    lines, failed = [], 0
    for family in FAMILIES:
        for name, code in read_cases(family).items():
            if not name.startswith(only):
                continue
            try:
                record = trace(fluid, code, INPUTS)
                if family == "errors":  # accepted: nothing to hold on to
                    continue
            except Exception as error:
                failed += family != "errors"
                message = " | ".join(str(error).strip().splitlines())[-400:]
                # an error of the framework's own C++ side has no class that a user could name
                own = type(error).__module__.startswith("paddle")
                record = {"code": code, "error": "EnforceNotMet" if own else type(error).__name__}
                if family != "errors":
                    print(family, name, code if "\n" not in code else "", type(error).__name__, message)
                if only:
                    traceback.print_exc()
            record = dict([("id", name), ("family", family)], **record)
            lines.append(json.dumps(record, sort_keys=False, separators=(",", ":")))
            if only:
                print(json.dumps(record, indent=1))
    print(len(lines), "cases,", failed, "refused")
    if not only:
        with open(os.path.join(HERE, "recorded", "layer_names.json"), "w") as out:
            out.write("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
