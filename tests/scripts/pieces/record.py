"""Write recorded/<script>.txt: what 1.8.5 prints. Run with its python: record.py [script ...]"""

import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
OTHER = ("kit", "record", "test_pieces")


def main(names):
    for name in names or sorted(n[:-3] for n in os.listdir(HERE) if n.endswith(".py") and n[:-3] not in OTHER):
        with tempfile.TemporaryDirectory() as folder:
            environment = dict(os.environ, CPU_NUM="2", OMP_NUM_THREADS="1")
            command = [sys.executable, os.path.join(HERE, name + ".py")]
            # 1.8.5 may abort at exit while threads of a reader live
            text = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE).stdout.decode()
        with open(os.path.join(HERE, "recorded", name + ".txt"), "w") as out:
            out.write(text)
        print(name, text.count("\n=="), "raised" if "raised" in text else "")


if __name__ == "__main__":
    main(sys.argv[1:])
