"""Write recorded/<script>.txt: what 1.8.5 prints. Run with its python: record.py [script ...], also of ../habits."""

import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDERS = (HERE, os.path.join(os.path.dirname(HERE), "habits"))
OTHER = ("kit", "record", "test_pieces")


def main(names):
    found = {n[:-3]: f for f in FOLDERS for n in os.listdir(f) if n.endswith(".py") and n[:-3] not in OTHER}
    for name in names or sorted(found):
        with tempfile.TemporaryDirectory() as folder:
            environment = dict(os.environ, CPU_NUM="2", OMP_NUM_THREADS="1", PYTHONPATH=HERE)
            command = [sys.executable, os.path.join(found[name], name + ".py")]
            # 1.8.5 may abort at exit while threads of a reader live
            text = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE).stdout.decode()
        with open(os.path.join(found[name], "recorded", name + ".txt"), "w") as out:
            out.write(text)
        print(name, text.count("\n=="), "raised" if "raised" in text else "")


if __name__ == "__main__":
    main(sys.argv[1:])
