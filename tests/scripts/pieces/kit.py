"""What the scripts of this folder share: equal parameters on both sides, and values printed in few digits."""

import os  # for the scripts
import sys
import traceback
import zlib

import numpy as np
import paddle.fluid as fluid

np.set_printoptions(precision=5, linewidth=100, threshold=60)


def drawn(name, shape, scale):
    return ((np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF).rand(*shape) - 0.5) * scale).astype(
        "float32"
    )


def draw(program=None, scale=1.0, scope=None):
    """Give every parameter the numbers that belong to its name."""
    scope = scope or fluid.global_scope()
    for p in (program or fluid.default_main_program()).global_block().all_parameters():
        if scope.find_var(p.name) is None or (not p.trainable and p.name.endswith((".w_1", ".w_2"))):
            continue
        for name in (p.name, p.name + "@SLOW"):
            found = scope.find_var(name)
            if found is not None:
                found.get_tensor().set(drawn(p.name, p.shape, scale), fluid.CPUPlace())


def draw_when_started():
    """From now on a startup Program's random parameters are those that belong to their names: whole programs stay as they are."""
    run = fluid.Executor.run

    def drawing(self, program=None, *args, **kwargs):
        result = run(self, program, *args, **kwargs)
        for op in program.global_block().ops if isinstance(program, fluid.Program) else ():
            if op.type in ("uniform_random", "gaussian_random", "truncated_gaussian_random"):
                found = fluid.global_scope().find_var(op.output_arg_names[0])
                if found is not None and "@" not in op.output_arg_names[0]:
                    tensor = found.get_tensor()
                    shape = np.array(tensor).shape
                    reach = 2 * np.sqrt(6.0 / ((shape[0] + shape[-1 if len(shape) < 3 else 1]) * np.prod(shape[2:])))
                    tensor.set(drawn(op.output_arg_names[0], shape, reach), fluid.CPUPlace())
        return result

    fluid.Executor.run = drawing


def ex(e):
    """The error's class; where it has several names, all of them."""
    if "millstream" not in fluid.__file__:
        return "!" + type(e).__name__
    return "!" + "|".join(c.__name__ for c in type(e).__mro__[:-2])


def show(*values):
    for v in values:
        if isinstance(v, (list, tuple)) and len(v) and not isinstance(v[0], (int, float, str, list, tuple)):
            show(*v)
        elif hasattr(v, "recursive_sequence_lengths") and hasattr(v, "lod"):
            print("lod", v.lod(), _summary(np.array(v)))
        elif isinstance(v, np.ndarray):
            print(_summary(v))
        else:
            print(v)


def _summary(a):
    flat = a.astype("float64").ravel()
    return "%s %s %s sum %.4f" % (a.shape, a.dtype, np.round(flat[:12], 4).tolist(), flat.sum())


def attempt(f):
    try:
        result = f()
    except Exception as e:
        print(ex(e))
    else:
        print("fine", end=" ")
        show("" if result is None or callable(result) else result)


def section(f):
    """Run `f` now with Programs, names and a Scope of its own."""
    print("==", f.__name__)
    main, startup = fluid.Program(), fluid.Program()
    try:
        with fluid.scope_guard(fluid.core.Scope()), fluid.program_guard(main, startup), fluid.unique_name.guard():
            f()
    except Exception as e:
        print("raised", ex(e))
        sys.stderr.write("%s: %s\n" % (f.__name__, traceback.format_exc()))
    sys.stdout.flush()
    return f


def train(loss, feeds, opt=None, extra=(), scale=1.0, rn=True):
    """Minimise `loss` over `feeds`, printing it and `extra`."""
    if opt is not None:
        opt.minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw(scale=scale)
    for feed in feeds:
        out = exe.run(feed=feed, fetch_list=[loss] + list(extra), return_numpy=rn)
        print("loss %.5f" % float(np.array(out[0]).ravel()[0]))
        show(*out[1:])
    return exe
