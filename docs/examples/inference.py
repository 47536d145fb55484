"""Inference

Saved models run without an Executor of one's own.
"""
# ruff: noqa
#: setup
def one():
    return fluid.initializer.Constant(1.0)
#: core.AnalysisConfig, core.create_paddle_predictor, core.PaddleTensor
x = fluid.data("x", [None, 2])
y = layers.fc(x, 1, param_attr=one())
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
fluid.io.save_inference_model("model", ["x"], [y], exe)
config = fluid.core.AnalysisConfig("model")
config.disable_gpu()
predictor = fluid.core.create_paddle_predictor(config)
(out,) = predictor.run([fluid.core.PaddleTensor(np.array([[1, 2]], "float32"), "x")])
print(out.as_ndarray().tolist())
