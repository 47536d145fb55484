"""``fluid.proto``: the messages of Program files, for programs that take them apart themselves."""
