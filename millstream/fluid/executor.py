"""``fluid.executor``: the Executor and the scopes it runs in."""

from millstream.runtime.executor import Executor
from millstream.runtime.scope import global_scope, scope_guard

__all__ = ["Executor", "global_scope", "scope_guard"]
