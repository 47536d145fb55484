"""fluid.layers: learning rate schedules

Each gives a Variable, to be passed to an optimizer as its learning rate.
"""
# ruff: noqa
#: setup
def rates(schedule, steps=4):
    """Print the learning rate of the first steps."""
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    print([round(exe.run(fetch_list=[schedule])[0].item(), 4) for _ in range(steps)])
#: layers.exponential_decay
rates(layers.exponential_decay(0.1, decay_steps=2, decay_rate=0.5, staircase=True))
#: layers.polynomial_decay
rates(layers.polynomial_decay(0.1, decay_steps=2, end_learning_rate=0.02))
#: layers.piecewise_decay
rates(layers.piecewise_decay(boundaries=[1, 3], values=[0.1, 0.05, 0.01]))
#: layers.cosine_decay
rates(layers.cosine_decay(0.1, step_each_epoch=1, epochs=4))
#: layers.noam_decay
rates(layers.noam_decay(d_model=64, warmup_steps=2))
#: layers.linear_lr_warmup
rates(layers.linear_lr_warmup(0.1, warmup_steps=3, start_lr=0.01, end_lr=0.1))
#: layers.inverse_time_decay
rates(layers.inverse_time_decay(0.1, decay_steps=1, decay_rate=1.0))
#: layers.natural_exp_decay
rates(layers.natural_exp_decay(0.1, decay_steps=1, decay_rate=0.5))
