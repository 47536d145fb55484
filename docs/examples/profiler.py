"""fluid.profiler

Where time is spent.
"""
# ruff: noqa
#: profiler.profiler
y = layers.relu(data([1.0]))
with fluid.profiler.profiler("CPU", sorted_key="total", profile_path="profile"):
    pass
print("recorded")
#: profiler.start_profiler, profiler.stop_profiler, profiler.reset_profiler
fluid.profiler.start_profiler("CPU")
fluid.profiler.reset_profiler()
fluid.profiler.stop_profiler(profile_path="profile")
print("stopped")
#: profiler.cuda_profiler
if fluid.is_compiled_with_cuda():
    with fluid.profiler.cuda_profiler("nvprof.txt", "csv"):
        pass
print("only with CUDA")
