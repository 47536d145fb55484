"""``fluid.install_check``: does training work here?"""

from __future__ import annotations

import numpy as np

from millstream.autodiff.backward import append_backward
from millstream.fluid import layers
from millstream.fluid.initializer import Constant
from millstream.fluid.param_attr import ParamAttr
from millstream.ir import names
from millstream.ir.program import Program, program_guard
from millstream.runtime.compiler import CompiledProgram
from millstream.runtime.executor import Executor
from millstream.runtime.place import CPUPlace
from millstream.runtime.scope import Scope, scope_guard

__all__ = ["run_check"]


def run_check() -> None:
    """Train a small layer for one step, on one place and on two; print that it works, or raise what went wrong."""
    feed = {"inp": np.array([[1.0, 2.0], [3.0, 4.0]], dtype="float32")}
    for count in (1, 2):
        main, startup = Program(), Program()
        with scope_guard(Scope()), program_guard(main, startup), names.guard():
            inp = layers.data(name="inp", shape=[2, 2], append_batch_size=False)
            out = layers.fc(inp, size=3, param_attr=ParamAttr(initializer=Constant(0.1)))
            loss = layers.reduce_mean(out)
            grads = append_backward(loss)
            executor = Executor(CPUPlace())
            executor.run(startup)
            program = (
                main if count == 1 else CompiledProgram(main).with_data_parallel(loss.name, places=[CPUPlace()] * count)
            )
            got = executor.run(program, feed=feed, fetch_list=[loss, grads[0][1]])
            expected = [0.5] if count == 1 else [0.3, 0.7]
            if not np.allclose(got[0], expected, atol=1e-6) or not np.isfinite(got[1]).all():
                raise RuntimeError(
                    f"install check: the loss on {count} place(s) should be {expected}, it is {got[0].tolist()}"
                )
        print(f"Your millstream works well on {count} CPU place{'s' if count > 1 else ''}.")
    print("Your millstream is installed successfully!")
