from __future__ import print_function
import os, sys, tempfile
import numpy as np
import paddle
import paddle.fluid as fluid

BATCH_SIZE = 16

def set_params(prog, scope=None, seed=0):
    rng = np.random.RandomState(seed)
    scope = scope or fluid.global_scope()
    for p in prog.global_block().all_parameters():
        scope.find_var(p.name).get_tensor().set((rng.rand(*p.shape) * 0.2 - 0.1).astype('float32'), fluid.CPUPlace())

def mnist(n, seed):
    def reader():
        rng = np.random.RandomState(seed)
        for i in xrange_(n):
            label = rng.randint(0, 10)
            img = rng.rand(784).astype('float32') * 0.5 - 1
            img[label * 70:label * 70 + 60] += 1
            yield img, int(label)
    return reader
xrange_ = range

def softmax_regression(img):
    return fluid.layers.fc(input=img, size=10, act='softmax')

def multilayer_perceptron(img):
    img = fluid.layers.fc(input=img, size=32, act='tanh')
    hidden = fluid.layers.fc(input=img, size=24, act='tanh')
    return fluid.layers.fc(input=hidden, size=10, act='softmax')

def convolutional_neural_network(img):
    conv_pool_1 = fluid.nets.simple_img_conv_pool(input=img, filter_size=5, num_filters=8, pool_size=2, pool_stride=2, act="relu")
    conv_pool_1 = fluid.layers.batch_norm(conv_pool_1)
    conv_pool_2 = fluid.nets.simple_img_conv_pool(input=conv_pool_1, filter_size=5, num_filters=10, pool_size=2, pool_stride=2, act="relu")
    return fluid.layers.fc(input=conv_pool_2, size=10, act='softmax')

def train(nn_type, parallel):
    main, startup = fluid.Program(), fluid.Program()
    scope = fluid.Scope()
    with fluid.program_guard(main, startup), fluid.scope_guard(scope), fluid.unique_name.guard():
        img = fluid.layers.data(name='img', shape=[1, 28, 28], dtype='float32')
        label = fluid.layers.data(name='label', shape=[1], dtype='int64')
        net_conf = globals()[nn_type]
        prediction = net_conf(img)
        cost = fluid.layers.cross_entropy(input=prediction, label=label)
        avg_loss = fluid.layers.mean(cost)
        total = fluid.layers.create_tensor(dtype='int64')
        acc = fluid.layers.accuracy(input=prediction, label=label, total=total)
        test_program = fluid.default_main_program().clone(for_test=True)
        optimizer = fluid.optimizer.Adam(learning_rate=0.001)
        optimizer.minimize(avg_loss)
        place = fluid.CPUPlace()
        exe = fluid.Executor(place)
        exe.run(startup)
        set_params(main, scope)
        np.random.seed(0)
        import random
        random.seed(10)
        train_reader = paddle.batch(paddle.reader.shuffle(mnist(80, 1), buf_size=50), batch_size=BATCH_SIZE, drop_last=True)
        test_reader = paddle.batch(mnist(40, 2), batch_size=BATCH_SIZE)
        feeder = fluid.DataFeeder(feed_list=[img, label], place=place)
        runner = None
        if parallel:
            os.environ['CPU_NUM'] = '2'
            runner = fluid.ParallelExecutor(use_cuda=False, loss_name=avg_loss.name, main_program=main, scope=scope)
            print('devices', runner.device_count)
        m_acc = fluid.metrics.Accuracy()
        comp = fluid.metrics.CompositeMetric()
        lists = []
        step = 0
        for epoch_id in range(2):
            for batch_id, data in enumerate(train_reader()):
                if runner:
                    l, a = runner.run(feed=feeder.feed(data), fetch_list=[avg_loss.name, acc.name])
                else:
                    l, a = exe.run(main, feed=feeder.feed(data), fetch_list=[avg_loss, acc])
                print(nn_type, step, l.shape, np.mean(l), a)
                step += 1
            acc_set, loss_set = [], []
            m_acc.reset()
            for d in test_reader():
                acc_np, loss_np, tot = exe.run(program=test_program, feed=feeder.feed(d), fetch_list=[acc, avg_loss, total])
                m_acc.update(value=acc_np, weight=int(tot[0]))
                acc_set.append(float(acc_np[0])); loss_set.append(float(loss_np[0]))
            print("Test with Epoch %d, avg_cost: %s, acc: %s, %s" % (epoch_id, np.mean(loss_set), np.mean(acc_set), m_acc.eval()))
            lists.append((epoch_id, np.mean(loss_set)))
        best = sorted(lists, key=lambda l: float(l[1]))[0]
        print('Best pass is %s, testing Avgcost is %s' % (best[0], best[1]))
        d = tempfile.mkdtemp()
        fluid.io.save_inference_model(d, ["img"], [prediction], exe, model_filename='model', params_filename='params')
        prog, feeds, fetches = fluid.io.load_inference_model(d, exe, model_filename='model', params_filename='params')
        x = np.linspace(-1, 1, 784).reshape(1, 1, 28, 28).astype('float32')
        res = exe.run(prog, feed={feeds[0]: x}, fetch_list=fetches)
        lab = np.argsort(res)
        print("Inference result of image is: %d" % lab[0][0][-1], res[0])
        print(sorted(os.listdir(d)))

if __name__ == '__main__':
    for nn in ['softmax_regression', 'multilayer_perceptron', 'convolutional_neural_network']:
        for par in (False, True):
            train(nn, par)
