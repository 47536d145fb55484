"""Reinforcement learning: learn, predict and sync Programs over one set of parameters, targets that follow, several agents."""
import numpy as np, os, sys, copy, collections, random
import paddle.fluid as fluid
from paddle.fluid import layers
from kit import draw_when_started, section
place = fluid.CPUPlace()
draw_when_started()
OBS, ACT, N = 5, 3, 2


class Attr(object):
    @staticmethod
    def get(name): return fluid.ParamAttr(name=name)


class Model(object):
    def __init__(self, prefix): self.prefix, self.params = prefix, []

    def fc(self, x, size, name, act=None, **kw):
        w, b = '%s_%s.w' % (self.prefix, name), '%s_%s.b' % (self.prefix, name)
        for n in (w, b):
            if n not in self.params: self.params.append(n)
        return layers.fc(x, size, act=act, param_attr=fluid.ParamAttr(name=w), bias_attr=fluid.ParamAttr(name=b), **kw)


class QNet(Model):
    def __init__(self, prefix, dueling): super(QNet, self).__init__(prefix); self.dueling = dueling

    def value(self, obs):
        h = self.fc(self.fc(obs, 8, 'fc1', 'relu'), 8, 'fc2', 'relu')
        if not self.dueling: return self.fc(h, ACT, 'q')
        a, v = self.fc(h, ACT, 'adv'), self.fc(h, 1, 'val')
        return a + (v - layers.reduce_mean(a, dim=1, keep_dim=True))


class Memory(object):
    def __init__(self, size, seed): self.buf, self.r = collections.deque(maxlen=size), np.random.RandomState(seed)
    def append(self, e): self.buf.append(e)
    def sample(self, n):
        idx = self.r.choice(len(self.buf), n, replace=False)
        cols = zip(*[self.buf[i] for i in idx])
        return [np.array(c).astype('float32') for c in cols]


class DQN(object):
    def __init__(self, double, dueling):
        self.double, self.step = double, 0
        self.model, self.target = QNet('model', dueling), QNet('target', dueling)
        self.pred_program, self.learn_program, self.sync_program, self.startup = [fluid.Program() for _ in range(4)]
        with fluid.program_guard(self.pred_program, self.startup):
            obs = layers.data('obs', [OBS], dtype='float32'); self.value = self.model.value(obs); self.act = layers.argmax(self.value, axis=1)
        with fluid.program_guard(self.learn_program, self.startup):
            obs, act, rew, nxt, term = layers.data('obs', [OBS], dtype='float32'), layers.data('act', [1], dtype='int32'), layers.data('reward', [], dtype='float32'), layers.data('next_obs', [OBS], dtype='float32'), layers.data('terminal', [], dtype='bool')
            pred = self.model.value(obs); nt = self.target.value(nxt)
            if double:
                greedy = layers.argmax(self.model.value(nxt), axis=1); one = layers.one_hot(layers.unsqueeze(greedy, axes=[1]), ACT)
                best = layers.reduce_sum(one * nt, dim=1)
            else:
                best = layers.reduce_max(nt, dim=1)
            best.stop_gradient = True
            tgt = rew + (1. - layers.cast(term, 'float32')) * .9 * best
            oh = layers.cast(layers.one_hot(act, ACT), 'float32')
            pq = layers.reduce_sum(layers.elementwise_mul(oh, pred), dim=1)
            td = layers.square_error_cost(layers.reshape(pq, [-1, 1]), layers.reshape(tgt, [-1, 1]))
            self.cost = layers.reduce_mean(td); self.hub = layers.reduce_mean(layers.huber_loss(layers.reshape(pq, [-1, 1]), layers.reshape(tgt, [-1, 1]), 1.))
            fluid.optimizer.RMSProp(1e-2, rho=.95, epsilon=1e-2, momentum=.5, centered=True).minimize(self.cost)
        with fluid.program_guard(self.sync_program, self.startup):
            blk = self.sync_program.global_block()
            for s, t in zip(self.model.params, self.target.params):
                sv = self.learn_program.global_block().var(s); tv = self.learn_program.global_block().var(t)
                a, b = blk._clone_variable(sv), blk._clone_variable(tv)
                layers.assign(a, b)
        self.exe = fluid.Executor(place); self.exe.run(self.startup)

    def learn(self, *b):
        if self.step % 3 == 0: self.exe.run(self.sync_program)
        self.step += 1
        o, a, r, n, t = b
        return self.exe.run(self.learn_program, feed={'obs': o, 'act': a.astype('int32').reshape(-1, 1), 'reward': r, 'next_obs': n, 'terminal': t.astype('bool')}, fetch_list=[self.cost, self.hub])


def dqn(double, dueling):
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard():
        ag = DQN(double, dueling); mem = Memory(30, 1); r = np.random.RandomState(0); ob = r.randn(OBS)
        for i in range(24):
            v, a = ag.exe.run(ag.pred_program, feed={'obs': ob[None].astype('float32')}, fetch_list=[ag.value, ag.act]); a = int(a[0]) if r.rand() > .3 else r.randint(ACT)
            n = ob * .9 + .2 * (a - 1) + .1 * r.randn(OBS); mem.append((ob, a, -np.abs(n).mean(), n, i % 7 == 6)); ob = n
            if i > 8 and i % 3 == 0:
                c, h = ag.learn(*mem.sample(6)); print('dqn', double, dueling, i, c, h, v.round(4).tolist())


class Actor(Model):
    def policy(self, obs, dim=2): return self.fc(self.fc(obs, 8, 'a1', 'relu'), dim, 'a2', 'tanh')


class Critic(Model):
    def value(self, obs, act):
        h = self.fc(obs, 8, 'c1', 'relu'); return layers.squeeze(self.fc(layers.concat([h, act], axis=1), 1, 'c2'), axes=[1])


def ddpg(tau=.1):
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard():
        a, c, ta, tc = Actor('actor'), Critic('critic'), Actor('t_actor'), Critic('t_critic')
        start, crit, act, sync, pred = [fluid.Program() for _ in range(5)]
        D = lambda n, s: layers.data(n, s, dtype='float32')
        with fluid.program_guard(pred, start): p = a.policy(D('obs', [OBS]))
        with fluid.program_guard(crit, start):
            o, ac, rw, nx, tm = D('obs', [OBS]), D('act', [2]), D('reward', []), D('next', [OBS]), layers.data('term', [], dtype='bool')
            nq = tc.value(nx, ta.policy(nx)); tq = rw + (1. - layers.cast(tm, 'float32')) * .95 * nq; tq.stop_gradient = True
            cl = layers.reduce_mean(layers.square_error_cost(c.value(o, ac), tq)); fluid.optimizer.Adam(1e-2, regularization=fluid.regularizer.L2Decay(1e-3)).minimize(cl, parameter_list=c.params)
        with fluid.program_guard(act, start):
            o = D('obs', [OBS]); al = layers.reduce_mean(-1. * c.value(o, a.policy(o))); fluid.optimizer.Adam(1e-2).minimize(al, parameter_list=a.params)
        with fluid.program_guard(sync, start):
            dec = layers.data('decay', [1], append_batch_size=False)
            for s, t in zip(a.params + c.params, ta.params + tc.params):
                v, w = [sync.global_block()._clone_variable(q.global_block().var(n)) if not sync.global_block().has_var(n) else sync.global_block().var(n) for q, n in ((crit if s.startswith('critic') else pred, s), (crit, t))]
                layers.assign(dec * w + (1. - dec) * v, w)
        exe = fluid.Executor(place); exe.run(start); exe.run(sync, feed={'decay': np.array([0.], 'float32')}); r = np.random.RandomState(2)
        for i in range(4):
            o, n = r.randn(6, OBS).astype('float32'), r.randn(6, OBS).astype('float32')
            l1, = exe.run(crit, feed={'obs': o, 'act': np.tanh(r.randn(6, 2)).astype('float32'), 'reward': r.randn(6).astype('float32'), 'next': n, 'term': r.rand(6) > .7}, fetch_list=[cl]); l2, = exe.run(act, feed={'obs': o}, fetch_list=[al]); exe.run(sync, feed={'decay': np.array([1 - tau], 'float32')})
            print('ddpg', i, l1, l2, exe.run(pred, feed={'obs': o[:1]}, fetch_list=[p])[0].round(4).tolist(), '%.5f' % sum(np.abs(np.array(fluid.global_scope().find_var(t).get_tensor())).sum() for t in ta.params + tc.params))


def ppo():
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard():
        class PV(Model):
            def policy(self, o):
                mu = self.fc(self.fc(o, 8, 'p1', 'tanh'), 2, 'mu'); ls = layers.create_parameter([2], 'float32', attr=fluid.ParamAttr(name=self.prefix + '_logstd', initializer=fluid.initializer.Constant(-.5)))
                if self.prefix + '_logstd' not in self.params: self.params.append(self.prefix + '_logstd')
                return mu, ls

            def value(self, o): return self.fc(self.fc(o, 8, 'v1', 'tanh'), 1, 'v')
        m, old = PV('pi'), PV('old')
        start, pl, vl, sy = [fluid.Program() for _ in range(4)]

        def logp(mu, ls, a): return -.5 * layers.reduce_sum(layers.square((a - mu) / layers.exp(ls)), 1, keep_dim=True) - layers.reduce_sum(ls) - 2 * .5 * float(np.log(2 * np.pi))
        with fluid.program_guard(pl, start):
            o, a, ad, beta = layers.data('obs', [OBS]), layers.data('act', [2]), layers.data('adv', [1]), layers.data('beta', [1], append_batch_size=False)
            mu, ls = m.policy(o); omu, ols = old.policy(o); omu.stop_gradient = True
            nl, ol = logp(mu, ls, a), logp(omu, ols, a); ol.stop_gradient = True
            ratio = layers.exp(nl - ol); clip = layers.clip(ratio, .8, 1.2)
            sur = layers.elementwise_min(ratio * ad, clip * ad)
            kl = layers.reduce_mean(layers.reduce_sum(layers.elementwise_add(layers.elementwise_div(layers.elementwise_add(layers.square(omu - mu), layers.square(layers.exp(ols)), axis=-1), 2. * layers.square(layers.exp(ls)), axis=-1), ls - ols - .5), dim=1))
            ent = layers.reduce_sum(ls + .5 * float(np.log(2 * np.pi * np.e)))
            loss = layers.reduce_mean(-1. * sur) + beta * kl - .01 * ent
            fluid.optimizer.Adam(1e-2, epsilon=1e-5, grad_clip=fluid.clip.GradientClipByGlobalNorm(.5)).minimize(loss, parameter_list=[n for n in m.params])
        with fluid.program_guard(vl, start):
            o, rt = layers.data('obs', [OBS]), layers.data('ret', [1]); v = m.value(o); vloss = layers.reduce_mean(layers.square_error_cost(v, rt)); fluid.optimizer.Adam(1e-2).minimize(vloss)
        with fluid.program_guard(sy, start):
            for n in m.params:
                if n.replace('pi', 'old') in old.params:
                    layers.assign(sy.global_block()._clone_variable(pl.global_block().var(n)), sy.global_block()._clone_variable(pl.global_block().var(n.replace('pi', 'old'))))
        exe = fluid.Executor(place); exe.run(start); r = np.random.RandomState(3)
        for i in range(3):
            exe.run(sy); o = r.randn(8, OBS).astype('float32'); rew = r.randn(8); vs = exe.run(vl.clone(for_test=True)._prune([v]) if False else vl, feed={'obs': o, 'ret': np.zeros((8, 1), 'float32')}, fetch_list=[v])[0].ravel()
            adv, g = np.zeros(8), 0
            for t in reversed(range(8)):
                d = rew[t] + .99 * (vs[t + 1] if t < 7 else 0) - vs[t]; g = d + .95 * .99 * g; adv[t] = g
            f = {'obs': o, 'act': r.randn(8, 2).astype('float32'), 'adv': ((adv - adv.mean()) / adv.std()).astype('float32')[:, None], 'beta': np.array([.5 ** i], 'float32')}
            for k in range(3):
                q = exe.run(pl, feed=f, fetch_list=[loss, kl, ent]); w = exe.run(vl, feed={'obs': o, 'ret': (adv + vs).astype('float32')[:, None]}, fetch_list=[vloss])
            print('ppo', i, [float('%.5f' % x) for x in (q[0][0], np.ravel(q[1])[0], q[2][0], w[0][0])])


def a2c_vtrace(T=4, B=3):
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard():
        main, start = fluid.Program(), fluid.Program()
        with fluid.program_guard(main, start):
            obs, act, rew, done, blog = layers.data('obs', [T, B, 1, 6, 6], append_batch_size=False), layers.data('act', [T * B, 1], append_batch_size=False, dtype='int64'), layers.data('rew', [T, B], append_batch_size=False), layers.data('done', [T, B], append_batch_size=False, dtype='bool'), layers.data('blog', [T * B, ACT], append_batch_size=False)
            x = layers.reshape(obs, [T * B, 1, 6, 6]) / 255.
            h = layers.flatten(layers.conv2d(x, 4, 3, stride=2, act='relu', name='c'), 1); h = layers.fc(h, 8, act='relu'); lg, val = layers.fc(h, ACT), layers.reshape(layers.fc(h, 1), [T, B])
            lp = layers.log(layers.softmax(lg)); oh = layers.one_hot(act, ACT); tl = layers.reshape(layers.reduce_sum(lp * oh, -1), [T, B]); bl = layers.reshape(layers.reduce_sum(layers.log(layers.softmax(blog)) * oh, -1), [T, B])
            rho = layers.exp(tl - bl); rho.stop_gradient = True; cr = layers.elementwise_min(rho, layers.fill_constant([T, B], 'float32', 1.))
            disc = .9 * (1. - layers.cast(done, 'float32')); boot = layers.slice(val, [0], [T - 1], [T])
            nv = layers.concat([layers.slice(val, [0], [1], [T]), boot], 0); delta = cr * (rew + disc * nv - val)
            rev = lambda t: layers.unsqueeze(layers.reverse(t, [0]), [2]); rd, rc, rk = rev(delta), rev(disc), rev(cr); zero = layers.fill_constant([B, 1], 'float32', 0.); st = layers.StaticRNN()
            with st.step():
                d, dd, cc = st.step_input(rd), st.step_input(rc), st.step_input(rk); acc = st.memory(init=zero)
                n = d + dd * cc * acc; st.update_memory(acc, n); st.output(n)
            vs = val + layers.reverse(layers.squeeze(st(), [2]), [0]); vs.stop_gradient = True
            nvs = layers.concat([layers.slice(vs, [0], [1], [T]), boot], 0); adv = cr * (rew + disc * nvs - val); adv.stop_gradient = True
            pg = layers.reduce_sum(-1. * tl * adv); vl = .5 * layers.reduce_sum(layers.square(vs - val)); en = -1. * layers.reduce_sum(layers.softmax(lg) * lp)
            lr, ec = layers.data('lr', [1], append_batch_size=False), layers.data('ec', [1], append_batch_size=False)
            loss = pg + .5 * vl - ec * en
            fluid.clip.set_gradient_clip(fluid.clip.GradientClipByGlobalNorm(40.)); fluid.optimizer.AdamOptimizer(lr).minimize(loss)
        exe = fluid.Executor(place); exe.run(start); r = np.random.RandomState(4)
        prog = fluid.CompiledProgram(main).with_data_parallel(loss.name, places=fluid.cpu_places(1)) if os.environ.get('DP') else main
        for i in range(4):
            o = exe.run(prog, feed={'obs': (r.rand(T, B, 1, 6, 6) * 255).astype('float32'), 'act': r.randint(0, ACT, (T * B, 1)), 'rew': r.randn(T, B).astype('float32'), 'done': r.rand(T, B) > .8, 'blog': r.randn(T * B, ACT).astype('float32'), 'lr': np.array([.01 / (i + 1)], 'float32'), 'ec': np.array([.01], 'float32')}, fetch_list=[loss, pg, vl, en])
            print('vtrace', i, ['%.5f' % v[0] for v in o])


def maddpg():
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard():
        start = fluid.Program(); ags = []
        for k in range(N):
            a, c, t = Actor('ag%d_actor' % k), Critic('ag%d_critic' % k), Critic('ag%d_tcritic' % k)
            q, p, s = fluid.Program(), fluid.Program(), fluid.Program()
            with fluid.program_guard(q, start):
                os_, as_ = [layers.data('obs%d' % i, [OBS]) for i in range(N)], [layers.data('act%d' % i, [2]) for i in range(N)]; tg = layers.data('target', [1])
                v = c.value(layers.concat(os_, 1), layers.concat(as_, 1)); ql = layers.reduce_mean(layers.square_error_cost(layers.unsqueeze(v, [1]), tg)); fluid.clip.set_gradient_clip(fluid.clip.GradientClipByNorm(.5), param_list=c.params, program=q); fluid.optimizer.Adam(.01).minimize(ql, parameter_list=c.params)
                tv = t.value(layers.concat(os_, 1), layers.concat(as_, 1))
            with fluid.program_guard(p, start):
                os_, as_ = [layers.data('obs%d' % i, [OBS]) for i in range(N)], [layers.data('act%d' % i, [2]) for i in range(N)]; mine = a.policy(os_[k]); reg = layers.reduce_mean(layers.square(mine)); as_[k] = mine
                pl = -1. * layers.mean(c.value(layers.concat(os_, 1), layers.concat(as_, 1))) + 1e-3 * reg; fluid.optimizer.Adam(.01).minimize(pl, parameter_list=a.params)
            with fluid.program_guard(s, start):
                for x, y in zip(c.params, t.params):
                    v_, w_ = s.global_block()._clone_variable(q.global_block().var(x)), s.global_block()._clone_variable(q.global_block().var(y)); layers.assign(.9 * w_ + .1 * v_, w_)
            ags.append((q, ql, p, pl, s, tv))
        exe = fluid.Executor(place); exe.run(start); r = np.random.RandomState(5); print(len(start.global_block().ops))
        for i in range(3):
            f = {'obs%d' % j: r.randn(4, OBS).astype('float32') for j in range(N)}; f.update({'act%d' % j: r.randn(4, 2).astype('float32') for j in range(N)})
            for k, (q, ql, p, pl, s, tv) in enumerate(ags):
                a = exe.run(q, feed=dict(f, target=r.randn(4, 1).astype('float32')), fetch_list=[ql, tv]); b = exe.run(p, feed=f, fetch_list=[pl]); exe.run(s); print('maddpg', i, k, a[0], b[0], '%.5f' % a[1].sum())


def quantile(M=4):
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard():
        main, start = fluid.Program(), fluid.Program()
        with fluid.program_guard(main, start):
            o, a, t = layers.data('o', [OBS]), layers.data('a', [1], dtype='int64'), layers.data('t', [M])
            z = layers.reshape(layers.fc(layers.fc(o, 8, act='relu'), ACT * M), [-1, ACT, M]); za = layers.reduce_sum(layers.elementwise_mul(z, layers.one_hot(a, ACT), axis=0), 1)
            d = layers.unsqueeze(t, [1]) - layers.unsqueeze(za, [2]); tau = layers.reshape(layers.range(.5 / M, 1., 1. / M, 'float32'), [1, M, 1])
            hub = layers.elementwise_min(layers.abs(d), layers.ones_like(d)); hub = hub * (layers.abs(d) - .5 * hub); w = layers.abs(tau - layers.cast(d < 0., 'float32')); w.stop_gradient = True
            loss = layers.reduce_mean(layers.reduce_sum(layers.reduce_mean(w * hub, 2), 1)); fluid.optimizer.Adamax(.02).minimize(loss)
        exe = fluid.Executor(place); exe.run(start); r = np.random.RandomState(6)
        for i in range(3): print('quantile', i, exe.run(main, feed={'o': r.randn(5, OBS).astype('float32'), 'a': r.randint(0, ACT, (5, 1)), 't': r.randn(5, M).astype('float32')}, fetch_list=[loss])[0])


@section
def q_networks():
    dqn(False, False)
    dqn(True, True)


for f in (ddpg, ppo, a2c_vtrace, maddpg, quantile):
    section(f)
