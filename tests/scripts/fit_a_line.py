from __future__ import print_function
import os, sys, math, shutil, tempfile, argparse
import numpy
import paddle
import paddle.fluid as fluid

def parse_args():
    parser = argparse.ArgumentParser("fit_a_line")
    parser.add_argument('--use_gpu', type=bool, default=False, help="Whether to use GPU or not.")
    parser.add_argument('--num_epochs', type=int, default=3, help="number of epochs.")
    return parser.parse_args()

def make_reader(n, seed):
    def reader():
        rng = numpy.random.RandomState(seed)
        w = numpy.linspace(-1, 1, 13).astype('float32')
        for _ in range(n):
            x = rng.rand(13).astype('float32')
            yield x, numpy.array([x.dot(w) + 0.3], dtype='float32')
    return reader

def train_test(executor, program, reader, feeder, fetch_list):
    accumulated = 1 * [0]
    count = 0
    for data_test in reader():
        outs = executor.run(program=program, feed=feeder.feed(data_test), fetch_list=fetch_list)
        accumulated = [x_c[0] + x_c[1][0] for x_c in zip(accumulated, outs)]
        count += 1
    return [x_d / count for x_d in accumulated]

def save_result(points1, points2):
    print("points", len(points1), len(points2))

def main(args):
    batch_size = 20
    numpy.random.seed(3)
    train_reader = paddle.batch(make_reader(101, 1), batch_size=batch_size)
    test_reader = paddle.batch(make_reader(40, 2), batch_size=batch_size)
    x = fluid.data(name='x', shape=[None, 13], dtype='float32')
    y = fluid.data(name='y', shape=[None, 1], dtype='float32')
    main_program = fluid.default_main_program()
    startup_program = fluid.default_startup_program()
    y_predict = fluid.layers.fc(input=x, size=1, act=None, param_attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(0.1)))
    cost = fluid.layers.square_error_cost(input=y_predict, label=y)
    avg_loss = fluid.layers.mean(cost)
    test_program = main_program.clone(for_test=True)
    sgd_optimizer = fluid.optimizer.SGD(learning_rate=0.05)
    opts, params_grads = sgd_optimizer.minimize(avg_loss)
    print([(p.name, g.name) for p, g in params_grads], [o.type for o in opts])
    use_cuda = args.use_gpu
    place = fluid.CUDAPlace(0) if use_cuda else fluid.CPUPlace()
    exe = fluid.Executor(place)
    num_epochs = args.num_epochs
    params_dirname = tempfile.mkdtemp()
    feeder = fluid.DataFeeder(place=place, feed_list=[x, y])
    exe.run(startup_program)
    train_prompt = "Train cost"
    test_prompt = "Test cost"
    step = 0
    exe_test = fluid.Executor(place)
    for pass_id in range(num_epochs):
        for data_train in train_reader():
            avg_loss_value, = exe.run(main_program, feed=feeder.feed(data_train), fetch_list=[avg_loss])
            if step % 5 == 0:
                print("%s, Step %d, Cost %f" % (train_prompt, step, avg_loss_value[0]))
            if step % 10 == 0:
                test_metics = train_test(executor=exe_test, program=test_program, reader=test_reader, fetch_list=[avg_loss.name], feeder=feeder)
                print("%s, Step %d, Cost %f" % (test_prompt, step, test_metics[0]))
                if test_metics[0] < 1e-5:
                    break
            step += 1
            if math.isnan(float(avg_loss_value[0])):
                sys.exit("got NaN loss, training failed.")
        fluid.io.save_inference_model(params_dirname, ['x'], [y_predict], exe)
    print(sorted(os.listdir(params_dirname)))
    infer_exe = fluid.Executor(place)
    inference_scope = fluid.core.Scope()
    with fluid.scope_guard(inference_scope):
        [inference_program, feed_target_names, fetch_targets] = fluid.io.load_inference_model(params_dirname, infer_exe)
        infer_reader = paddle.batch(make_reader(10, 9), batch_size=10)
        infer_data = next(infer_reader())
        infer_feat = numpy.array([data[0] for data in infer_data]).astype("float32")
        infer_label = numpy.array([data[1] for data in infer_data]).astype("float32")
        assert feed_target_names[0] == 'x'
        results = infer_exe.run(inference_program, feed={feed_target_names[0]: numpy.array(infer_feat)}, fetch_list=fetch_targets)
        for idx, val in enumerate(results[0]):
            print("%d: %.4f" % (idx, val[0]))
        for idx, val in enumerate(infer_label):
            print("%d: %.4f" % (idx, val[0]))
        save_result(results[0], infer_label)
        print(fetch_targets[0].name, [op.type for op in inference_program.global_block().ops])
    # fluid.save / load / set_program_state
    path = os.path.join(params_dirname, 'st', 'model')
    fluid.save(main_program, path)
    print(sorted(os.listdir(os.path.dirname(path))))
    before = numpy.array(fluid.global_scope().find_var('fc_0.w_0').get_tensor())
    fluid.global_scope().find_var('fc_0.w_0').get_tensor().set(numpy.zeros((13, 1), 'float32'), place)
    fluid.load(main_program, path, exe)
    after = numpy.array(fluid.global_scope().find_var('fc_0.w_0').get_tensor())
    print((before == after).all())
    state = fluid.load_program_state(path)
    print(sorted((k, v.shape, str(v.dtype)) for k, v in state.items()))
    state['fc_0.w_0'] = state['fc_0.w_0'] * 0 + 2
    fluid.set_program_state(main_program, state)
    print(fluid.io.get_parameter_value_by_name('fc_0.w_0', exe).ravel()[:3])
    print(fluid.io.get_parameter_value(main_program.all_parameters()[0], exe).sum())
    fluid.io.save_params(exe, params_dirname, filename='all')
    fluid.io.load_params(exe, params_dirname, filename='all')
    shutil.rmtree(params_dirname)

if __name__ == '__main__':
    args = parse_args()
    main(args)
