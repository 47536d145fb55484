"""Record folders saved by PaddlePaddle 1.8.5 and what they compute: recorded/saved/<program>.zip and .npz.

OMP_NUM_THREADS=1 <python with paddlepaddle 1.8.5> record_saved.py [id prefix]
"""

import os
import shutil
import sys
import tempfile
import zipfile

import numpy as np
import paddle.fluid as fluid
from paddle.fluid.proto import framework_pb2

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from saved_files import FORMS, SAVED, infer, save_all, train_a_little  # noqa: E402

OUT = os.path.join(HERE, "recorded", "saved")
MODEL_FILES = ("__model__", "model", "model.pdmodel")


def without_paths(content):
    """The same ProgramDesc with neutral op_callstack strings: they name files of the recording machine."""
    program = framework_pb2.ProgramDesc.FromString(content)
    assert program.SerializeToString() == content
    for block in program.blocks:
        for op in block.ops:
            for attr in op.attrs:
                if attr.name == "op_callstack":
                    attr.strings[:] = ['  File "train.py", line 1, in <module>']
    return program.SerializeToString()


def pack(root, target):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for folder, _, files in sorted(os.walk(root)):
            for name in sorted(files):
                path = os.path.join(folder, name)
                with open(path, "rb") as source:
                    content = source.read()
                if name in MODEL_FILES:
                    content = without_paths(content)
                    with open(path, "wb") as rewritten:
                        rewritten.write(content)
                assert b"site-packages" not in content, path
                out.writestr(
                    zipfile.ZipInfo(os.path.relpath(path, root), (2020, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED
                )


def record(name):
    root = tempfile.mkdtemp()
    try:
        with fluid.scope_guard(fluid.Scope()):
            exe, built = train_a_little(fluid, name)
            save_all(fluid, exe, built, name, root)
        pack(root, os.path.join(OUT, name + ".zip"))
        arrays = {}
        for form in FORMS:
            out, lens = infer(fluid, name, root, form)
            arrays[form] = out
            for level, values in enumerate(lens):
                arrays["%s.lod%d" % (form, level)] = np.array(values, "int64")
            assert np.array_equal(out, arrays["infer"]) or form == "x", (form, np.abs(out - arrays["infer"]).max())
        np.savez_compressed(os.path.join(OUT, name + ".npz"), **arrays)
        print(name, arrays["infer"].shape, os.path.getsize(os.path.join(OUT, name + ".zip")))
    finally:
        shutil.rmtree(root)


def main():
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    if not os.path.isdir(OUT):
        os.makedirs(OUT)
    for name in sorted(SAVED):
        if name.startswith(only):
            record(name)


if __name__ == "__main__":
    main()
