"""The package proposals by itself: what it imports, how fast it starts, what it says while it compiles."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent

BLOCKER = """
import importlib.abc, sys

ALLOWED = {"numpy", "numba", "llvmlite", "cv2", "proposals"} | set(sys.stdlib_module_names)

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and not top.startswith("_"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
"""


def python(code, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}
    )


def test_numpy_numba_and_opencv_are_enough(tmp_path):
    code = BLOCKER + (
        "import numpy as np, pathlib\n"
        "import proposals.recall, proposals.boxes\n"
        "from proposals import selective_search\n"
        "from proposals.settings import ProposalConfig\n"
        "from proposals.merging import propose\n"
        "from proposals.store import ProposalStore, digest\n"
        "from proposals.store_writer import StoreWriter\n"
        "image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)\n"
        "boxes, scores = selective_search(image, mode='fast', superpixel_scale=2.0, seed=0, threads=1)\n"
        f"folder = pathlib.Path({str(tmp_path / 'store')!r})\n"
        "with StoreWriter(folder, {}, ['a']) as writer:\n"
        "    writer.append('a', digest(b'a'), (80, 60), propose(image, ProposalConfig()))\n"
        "    writer.finish()\n"
        "print(boxes.dtype, scores.dtype, boxes.shape == (len(scores), 4), len(ProposalStore(folder)))\n"
        "for name in ('torch', 'PIL', 'skimage', 'scipy', 'detector'):\n"
        "    try: __import__(name)\n"
        "    except ModuleNotFoundError: continue\n"
        "    print(name, 'was not blocked')\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "float32 float32 True 1\n"


def test_a_second_process_compiles_nothing():
    """It takes 15 s, and what the first one compiled lies in a cache."""
    code = (
        "import numpy as np\n"
        "from numba.core import event\n"
        "from proposals import selective_search\n"
        "with event.install_recorder('numba:compile') as recorder:\n"
        "    selective_search(np.zeros((40, 60, 3), np.uint8))\n"
        "print(len(recorder.buffer))\n"
    )
    python(code)
    assert python(code).stdout == "0\n"


def test_compiling_is_announced_once(tmp_path):
    """A module that numba compiles and caches, as those of the package."""
    (tmp_path / "kernels.py").write_text(
        "from proposals.compiling import compiled\n"
        "@compiled()\ndef add(a, b):\n    return a + b\n"
        "@compiled()\ndef double(a):\n    return 2 * a\n"
    )
    (tmp_path / "others.py").write_text("from numba import njit\n@njit\ndef add(a, b):\n    return a + b\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import others, kernels\n"
        "others.add(1, 2)\n"  # what the user compiles is the user's
        "print(kernels.add(1, 2), kernels.double(3), kernels.add(1.0, 2.0))\n"
    )
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    first, second = python(code, **cache), python(code, **cache)
    assert first.stdout == second.stdout == "3 6 3.0\n"
    assert first.stderr.startswith("compiling")
    assert first.stderr.count("\n") == 1
    assert second.stderr == ""


def test_a_cache_is_cold_until_this_source_is_compiled_for_this_processor(tmp_path):
    (tmp_path / "kit").mkdir()
    source = tmp_path / "kit" / "kernels.py"
    source.write_text("from proposals.compiling import compiled\n@compiled()\ndef add(a, b):\n    return a + b\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from kit.kernels import add\n"
        "from proposals.compiling import is_cold\n"
        "before = is_cold('kit')\n"
        "add(1, 2)\n"
        "print(before, is_cold('kit'), is_cold('ki'))\n"
    )
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert python(code, **cache).stdout == "True False False\n"
    assert python(code, **cache).stdout == "False False False\n"
    assert python(code, NUMBA_CPU_NAME="generic", **cache).stdout == "True False False\n"
    source.write_text(source.read_text() + "# changed\n")
    assert python(code, **cache).stdout == "True False False\n"


def test_the_first_detection_compiles_each_kernel_once_and_loads_no_compiler_of_torch(tmp_path):
    """A kernel compiled for two types or memory layouts, or in two processes, doubles the wait; so would torch._dynamo.

    Selective search is compiled by another process: this one finds all of it in the cache, where nothing lies twice.
    """
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    words = [str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), "suppression.min_score=0.001"]
    code = (
        "import collections, sys\n"
        "from numba.core import event\n"
        "from detector.commands.detect import main\n"
        "with event.install_recorder('numba:compile') as recorder:\n"
        f"    main({words})\n"
        "ends = [one.data['dispatcher'].py_func for _, one in recorder.buffer if one.is_end]\n"
        "names = [f'{one.__module__}.{one.__qualname__}' for one in ends]\n"
        "counts = collections.Counter(name for name in names if name.startswith(('proposals.', 'detector.')))\n"
        "print('detector.regions.warp._warp' in counts, [name for name in counts if 'selective' in name])\n"
        "print({name: count for name, count in counts.items() if count > 1})\n"
        "print([name for name in names if 'raise_with_shape' in name or 'unicode' in name])\n"
        "print({'torch._dynamo', 'torchvision', 'albumentations', 'matplotlib'} & set(sys.modules))\n"
    )
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "2"}
    done = python(code, **environment)
    assert done.stdout.endswith("\nTrue []\n{}\n[]\nset()\n"), done.stdout + done.stderr
    assert done.stderr.count("compiling once") == 1
    assert done.stderr.count("\n") == 3  # the others are "1 of 1 images done" and what was found
    files = [file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    indices, codes = [{name.partition(".py3")[0] for name in files if name.endswith(end)} for end in (".nbi", ".nbc")]
    assert indices == codes
    assert len(files) == 2 * len(indices)  # one overload each, and nothing half-written
    assert {"grouping._group", "segmentation._find", "colour._byte"} <= {name.partition("-")[0] for name in indices}

    warm = (
        "import subprocess, sys\n"
        "from detector.commands.compiling_aside import compiling_aside\n"
        "from proposals.settings import ProposalConfig\n"
        "subprocess.Popen = None\n"
        "with compiling_aside(ProposalConfig()) as aside:\n"
        "    print(aside, 'torch' in sys.modules)\n"
    )
    again = python(warm, **environment)
    assert (again.stdout, again.stderr) == ("False False\n", "")


@pytest.mark.parametrize("package", ["proposals", "detector"])
def test_exports_are_found_and_listed_without_importing_them(package):
    code = (
        f"import {package}, sys\n"
        f"assert set({package}.__all__) <= set(dir({package}))\n"
        "assert not {'torch', 'cv2', 'numba'} & set(sys.modules)\n"
        f"print(*(getattr({package}, name).__name__ for name in {package}.__all__))\n"
        f"try: {package}.nothing\n"
        "except AttributeError as error: print(error)\n"
    )
    done = python(code)
    names, error = done.stdout.splitlines()
    assert sorted(names.split()) == sorted(__import__(package).__all__)
    assert "'nothing'" in error
