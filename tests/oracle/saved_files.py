"""What is saved, in which forms, and how a saved folder is read and run again. Same code for both frameworks."""

import os

import numpy as np

from program_model import Built, all_programs, one_step_feed, run_steps

# program id -> (feeds of inference, index of its target in Model.fetch)
SAVED = {
    "fit_a_line": (["x"], 0),
    "lenet": (["img"], 0),
    "ctr": (["dense", "slot_0", "slot_1", "slot_2", "slot_3"], 0),
    "sentiment-lstm": (["words"], 0),
    "tagger": (["word"], 1),
    "transformer": (["word", "pos", "bias"], 1),
    "seq2seq-plain": (["src", "trg"], 0),
    "language_model-static_rnn": (["x"], 0),
}
FORMS = ("infer", "infer_combined", "persistables", "persistables_combined", "save")


def find_program(name):
    return next((module, variant) for found, module, variant in all_programs() if found == name)


def folder_of(root, form):
    return os.path.join(root, form)


def save_all(fluid, exe, built, name, root):
    """Write every form below `root`; the caller's scope holds the values."""
    feeds, target = SAVED[name]
    # first: save_inference_model appends to the program
    fluid.io.save_persistables(exe, folder_of(root, "persistables"), built.main)
    fluid.io.save_persistables(exe, folder_of(root, "persistables_combined"), built.main, filename="all")
    fluid.save(built.main, os.path.join(folder_of(root, "save"), "model"))
    targets = [built.model.fetch[target]]
    fluid.io.save_inference_model(folder_of(root, "infer"), feeds, targets, exe, built.main)
    fluid.io.save_inference_model(
        folder_of(root, "infer_combined"), feeds, targets, exe, built.main, model_filename="model", params_filename="params"
    )


def train_a_little(fluid, name, steps=3):
    """(executor, Built) after a few steps in the current scope."""
    module, variant = find_program(name)
    built = Built(fluid, module, variant)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(built.startup)
    built.model.feeds = built.model.feeds[:steps]
    run_steps(fluid, exe, built)
    return exe, built


def infer(fluid, name, root, form):
    """Load `form` from `root` into a fresh scope and run the fixed feed: (array, lengths)."""
    module, variant = find_program(name)
    feeds, target = SAVED[name]
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        forward = Built(fluid, module, variant, train=False)
        feed = {k: forward.model.feeds[0][k] for k in feeds}
        if form.startswith("infer"):
            files = {} if form == "infer" else {"model_filename": "model", "params_filename": "params"}
            program, names, targets = fluid.io.load_inference_model(folder_of(root, form), exe, **files)
            assert list(names) == list(feeds), names
        else:
            program, targets = forward.main.clone(for_test=True), [forward.model.fetch[target].name]
            feed = forward.model.feeds[0]
            exe.run(forward.startup)
            if form == "persistables":
                fluid.io.load_persistables(exe, folder_of(root, form), forward.main)
            elif form == "persistables_combined":
                # a combined file is read back by the program that wrote it: it names nothing
                trained = Built(fluid, module, variant)
                exe.run(trained.startup)
                fluid.io.load_persistables(exe, folder_of(root, form), trained.main, filename="all")
            else:
                fluid.load(forward.main, os.path.join(folder_of(root, form), "model"), exe)
        out = exe.run(program, feed=one_step_feed(fluid, feed), fetch_list=targets, return_numpy=False)[0]
        return np.array(out), out.recursive_sequence_lengths()
