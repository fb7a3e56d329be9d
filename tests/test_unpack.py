"""The unpacker: packed scripts of our own making, newer syntax, broken and hostile files."""

# ruff: noqa: E501  (packed one-liners are easier to follow unbroken)

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import gzip
import json
import lzma
import sys
import warnings
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditor.submission import Change, SubmissionFile
from auditor.unpack import Program, read_program
from auditor.unpack.decoders import DECODERS, DecodeError
from auditor.unpack.limits import Budget, LimitError
from auditor.unpack.source import encoding_of, read_source

FOLDER = "records/track_10min_16mb/2030-01-01_Example"
PROGRAM = """import os


class Model:
    def forward(self, x):
        return x


def main():
    model = Model()
    print(f"val_bpb:{model.forward(1.0):.4f}", os.environ.get("SEED", "1337"))


if __name__ == "__main__":
    main()
""" + "".join(f"\n\ndef helper_{i}(value):\n    return value * {i}\n" for i in range(40))

RAW = 'format=L.FORMAT_RAW,filters=[{"id":L.FILTER_LZMA2}]'


def shipped(content: bytes | str, path: str = "train_gpt.py") -> SubmissionFile:
    data = content.encode() if isinstance(content, str) else content
    return SubmissionFile(f"{FOLDER}/{path}", len(data), Change.ADDED, lambda: data)


def read(content: bytes | str, path: str = "train_gpt.py", **others: bytes | str) -> Program:
    """Read one script; ``others`` are its sibling files, "__" standing for "." in their names."""
    files = [shipped(content, path), *(shipped(c, n.replace("__", ".")) for n, c in others.items())]
    return read_program(files[0], {f.path[len(FOLDER) + 1 :]: f for f in files})


def b85(data: bytes | str, compress: Callable[[bytes], bytes] = lzma.compress) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.b85encode(compress(raw)).decode()


def raw_lzma(data: bytes) -> bytes:
    return lzma.compress(data, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}])


X = b85(PROGRAM)
B64 = base64.b64encode(zlib.compress(PROGRAM.encode())).decode()
HALF = len(X) // 2

PACKED: dict[str, str] = {
    "plain": f"import lzma,base64\nexec(lzma.decompress(base64.b85decode('{X}')))",
    "one line": f"import lzma,base64;exec(lzma.decompress(base64.b85decode('{X}')).decode())",
    "raw lzma": f"import lzma as L,base64 as B\nexec(L.decompress(B.b85decode('{b85(PROGRAM, raw_lzma)}'),{RAW}))",
    "zlib, base64": f"import zlib,base64\nexec(zlib.decompress(base64.b64decode(b'{B64}')))",
    "gzip": f"import gzip,base64\nexec(gzip.decompress(base64.b85decode('{b85(PROGRAM, gzip.compress)}')))",
    "bz2": f"import bz2,base64\nexec(bz2.decompress(base64.b85decode('{b85(PROGRAM, bz2.compress)}')))",
    "brotli": f"import brotli,base64\nexec(brotli.decompress(base64.b85decode('{b85(PROGRAM, brotli.compress)}')))",
    "zstandard": "import zstandard as z,base64\n"
    f"exec(z.ZstdDecompressor().decompress(base64.b85decode('{b85(PROGRAM, zstandard.compress)}')))",
    "hex": f"import zlib\nexec(zlib.decompress(bytes.fromhex('{zlib.compress(PROGRAM.encode()).hex()}')))",
    "unhexlify": "import zlib,binascii\n"
    f"exec(zlib.decompress(binascii.unhexlify('{zlib.compress(PROGRAM.encode()).hex()}')))",
    "a85": f"import zlib,base64\nexec(zlib.decompress(base64.a85decode({base64.a85encode(zlib.compress(PROGRAM.encode()))!r})))",
    "b32": "import zlib,base64\n"
    f"exec(zlib.decompress(base64.b32decode('{base64.b32encode(zlib.compress(PROGRAM.encode())).decode()}')))",
    "codecs": f"import codecs\nexec(codecs.decode(codecs.decode({B64!r}.encode(),'base64'),'zlib'))",
    "from imports": f"from lzma import decompress as x\nfrom base64 import b85decode as d\nexec(x(d('{X}')))",
    "dunder import": f"exec(__import__('lzma').decompress(__import__('base64').b85decode('{X}')))",
    "importlib": "import importlib\n"
    f"exec(importlib.import_module('lzma').decompress(importlib.import_module('base64').b85decode('{X}')))",
    "joined": "import lzma,base64\n"
    f"p=''.join(['{X[:HALF]}','{X[HALF:]}'])\nexec(lzma.decompress(base64.b85decode(p)))",
    "implicit": f"import lzma,base64\np=('{X[:HALF]}'\n'{X[HALF:]}')\nexec(lzma.decompress(base64.b85decode(p)))",
    "concatenated": "import lzma,base64\n"
    f"p='{X[:HALF]}'\np+='{X[HALF:]}'\nexec(lzma.decompress(base64.b85decode(p)))",
    "reversed": f"import lzma,base64\nexec(lzma.decompress(base64.b85decode('{X[::-1]}'[::-1])))",
    "replaced": "import zlib,base64\n"
    f"exec(zlib.decompress(base64.b64decode('{B64.replace('A', '~')}'.replace('~','A'))))",
    "formatted": f"import lzma,base64\np='{X[:HALF]}'\nexec(lzma.decompress(base64.b85decode(f'{{p}}{X[HALF:].replace('{', '{{').replace('}', '}}')}')))",
    "lines": "import zlib,base64\nb='''\n"
    + "\n".join(B64[i : i + 76] for i in range(0, len(B64), 76))
    + "\n'''\nexec(zlib.decompress(base64.b64decode(b.replace('\\n',''))))",
    "compiled": f"import lzma,base64\nexec(compile(lzma.decompress(base64.b85decode('{X}')),'x','exec'),globals())",
    "linecache": "import lzma as L,base64 as B,linecache as C\n"
    f"S=L.decompress(B.b85decode('{X}')).decode()\nF=__file__+'.decompressed.py'\n"
    "C.cache[F]=(len(S),None,S.splitlines(True),F)\nexec(compile(S,F,'exec'))",
    "lambda": f"import lzma,base64\nu=lambda s:lzma.decompress(base64.b85decode(s))\nexec(u('{X}'))",
    "function": "import lzma,base64\ndef unpack(s, times=1):\n    data = base64.b85decode(s)\n"
    f"    for _ in range(times):\n        data = lzma.decompress(data)\n    return data.decode()\nexec(unpack('{X}'))",
    "main": "import lzma,base64\ndef main():\n"
    f"    exec(lzma.decompress(base64.b85decode('{X}')), globals())\nif __name__ == '__main__':\n    main()",
    "getattr": f"import lzma,base64,builtins\ngetattr(builtins,'ex'+'ec')(lzma.decompress(base64.b85decode('{X}')))",
    "machine": f"import lzma,base64\nd=lzma.LZMADecompressor()\nexec(d.decompress(base64.b85decode('{X}')))",
    "stream": f"import gzip,io,base64\nexec(gzip.GzipFile(fileobj=io.BytesIO(base64.b85decode('{b85(PROGRAM, gzip.compress)}'))).read())",
    "xor": "exec(bytes(c^90 for c in bytes.fromhex('"
    + bytes(c ^ 90 for c in PROGRAM.encode()).hex()
    + "')).decode())",
    "try import": "try:\n    import brotli\nexcept ImportError:\n    raise SystemExit\n"
    f"import base64\nexec(brotli.decompress(base64.b85decode('{b85(PROGRAM, brotli.compress)}')))",
    "json": "import json,lzma,base64\n"
    f"exec(json.loads(lzma.decompress(base64.b85decode('{b85(json.dumps({'main.py': PROGRAM}))}')))['main.py'])",
    "marker": f"import zlib,base64\nexec(zlib.decompress(base64.b64decode(open(__file__).read().split('#'+'DATA:')[1])))\n#DATA:{B64}",
    "temporary file": "import lzma,base64,tempfile,os,runpy\n"
    f"c=lzma.decompress(base64.b85decode('{X}'))\nd=tempfile.mkdtemp()\np=os.path.join(d,'t.py')\n"
    "with open(p,'wb') as f:\n    f.write(c)\nrunpy.run_path(p,run_name='__main__')",
    "exec_module": "import lzma,base64,importlib.util as u,os\n"
    f"c=lzma.decompress(base64.b85decode('{X}'))\np='/tmp/inner.py'\n"
    "if not os.path.exists(p) or os.path.getsize(p)!=len(c):\n    with open(p,'wb') as f:f.write(c)\n"
    "s=u.spec_from_file_location('__main__',p)\nm=u.module_from_spec(s)\ns.loader.exec_module(m)",
    "written module": "import lzma,base64,sys\nfrom pathlib import Path\n"
    f"Path('inner_train.py').write_bytes(lzma.decompress(base64.b85decode('{X}')))\n"
    "sys.path.insert(0,'.')\nimport inner_train\ninner_train.main()",
    "subprocess": "import lzma,base64,sys,subprocess\n"
    f"open('inner.py','wb').write(lzma.decompress(base64.b85decode('{X}')))\n"
    "subprocess.run([sys.executable,'inner.py'],check=True)",
}  # fmt: skip


@pytest.mark.parametrize("script", PACKED.values(), ids=PACKED.keys())
def test_packed_scripts_are_unpacked(script: str) -> None:
    program = read(script)
    assert program.problem is None, program.detail
    assert program.text == PROGRAM
    assert program.view == "unpacked"
    assert program.file == f"{FOLDER}/train_gpt.py"
    assert program.tree is not None and ast.dump(program.tree) == ast.dump(ast.parse(PROGRAM))


SIBLING = {
    "name": "import lzma,os\nexec(lzma.decompress(open(os.path.join(os.path.dirname(__file__),'x.bin'),'rb').read()))",
    "with_name": "import lzma\nfrom pathlib import Path\n"
    "exec(lzma.decompress(open(Path(__file__).with_name('x.bin'),'rb').read()))",
    "parent": "import lzma\nfrom pathlib import Path\n"
    "exec(compile(lzma.decompress((Path(__file__).resolve().parent/'x.bin').read_bytes()),'x','exec'))",
    "relative": "import lzma\nwith open('x.bin','rb') as f: d=f.read()\nexec(lzma.decompress(d))",
    "lzma.open": "import lzma\nexec(lzma.open('x.bin').read())",
    "loop": "import lzma\nfor n in ['x.bin']:\n    exec(lzma.decompress(open(n,'rb').read()))",
}


@pytest.mark.parametrize("script", SIBLING.values(), ids=SIBLING.keys())
def test_payload_in_a_sibling_file(script: str) -> None:
    program = read(script, x__bin=lzma.compress(PROGRAM.encode()))
    assert (program.text, program.view, program.problem) == (PROGRAM, "unpacked", None)
    assert program.layers[-2:] == ("lzma.decompress", "exec") or program.layers[-1] == "exec"


def test_missing_sibling_is_opaque() -> None:
    program = read(SIBLING["relative"])
    assert program.problem == "opaque-code"
    assert program.detail is not None and "x.bin" in program.detail and "3:1" in program.detail


def test_wrapper_around_a_shipped_file_stands_for_that_file() -> None:
    program = read("exec(open(__file__.replace('train_gpt','inner')).read())", inner__py=PROGRAM)
    assert program.file == f"{FOLDER}/inner.py"
    assert (program.view, program.text) == ("shipped", PROGRAM)
    assert program.layers == ("open('inner.py')", "exec")
    assert program.locate(3, 4) == (3, 4)


def test_launcher_with_code_of_its_own_stays_and_names_what_it_runs() -> None:
    launcher = PROGRAM + "\nexec(open('inner.py').read())\n"
    program = read(launcher, inner__py=PROGRAM.replace("1337", "42"))
    assert (program.text, program.view) == (launcher, "shipped")
    assert [b.file for b in program.bundled] == [f"{FOLDER}/inner.py"]


def test_layers_anchor_and_prelude() -> None:
    script = (
        "import os, lzma, base64\n"
        "os.environ.setdefault('TTT_ENABLED', '1')\n"
        f"x = 'é'; exec(lzma.decompress(base64.b85decode('{X}')))\n"
        "print('done')\n"
    )
    program = read(script)
    assert program.layers == ("base64.b85decode", "lzma.decompress", "exec")
    assert program.locate(10, 3) == (3, 10)
    assert program.prelude is not None
    assert "TTT_ENABLED" in ast.unparse(program.prelude)
    assert [s.lineno for s in program.prelude.body] == [1, 2, 3, 4]


def test_stages_within_stages() -> None:
    script = PROGRAM
    for stage in range(4):
        script = (
            f"import os,zlib,base64\nos.environ['STAGE']='{stage}'\n"
            f"exec(zlib.decompress(base64.b85decode({b85(script, zlib.compress)!r})))"
        )
    program = read(script)
    assert (program.text, program.problem) == (PROGRAM, None)
    assert program.layers == ("base64.b85decode", "zlib.decompress", "exec") * 4
    assert program.prelude is not None
    stages = [line for line in ast.unparse(program.prelude).splitlines() if "STAGE" in line]
    assert len(stages) == 4
    assert {s.lineno for s in program.prelude.body} <= {1, 2, 3}


def test_too_many_stages_are_opaque() -> None:
    script = PROGRAM
    for _ in range(12):
        script = f"import zlib,base64\nexec(zlib.decompress(base64.b85decode({b85(script, zlib.compress)!r})))"
    program = read(script)
    assert program.problem == "opaque-code"
    assert program.detail is not None and "8 stages" in program.detail


def test_several_payloads_are_joined_in_order() -> None:
    other = PROGRAM.replace("helper_", "second_")
    script = (
        "import lzma,base64\n"
        f"exec(lzma.decompress(base64.b85decode('{X}')))\nexec(lzma.decompress(base64.b85decode('{b85(other)}')))"
    )
    program = read(script)
    assert program.text == PROGRAM + other
    assert program.tree is not None
    assert program.layers == ("base64.b85decode", "lzma.decompress", "exec")


def test_a_decoder_that_is_itself_packed() -> None:
    decoder = "def decode(s):\n    import base64, lzma\n    return lzma.decompress(base64.b85decode(s))\n"
    script = f"import base64\nexec(base64.b64decode({base64.b64encode(decoder.encode())!r}))\nexec(decode({X!r}))"
    program = read(script)
    assert PROGRAM in program.text and program.problem is None


def test_bundled_modules_are_kept_beside_the_program() -> None:
    module = "def double(value):\n    return value * 2\n" * 30
    script = (
        "import sys, types\n\ndef install(name, source):\n    module = types.ModuleType(name)\n"
        "    exec(compile(source, name, 'exec'), module.__dict__)\n    sys.modules[name] = module\n\n"
        f"install('tools.doubling', {module!r})\n" + PROGRAM
    )
    program = read(script)
    assert (program.text, program.view, program.problem) == (script, "shipped", None)
    assert [(b.text, b.view, b.name) for b in program.bundled] == [(module, "unpacked", "tools.doubling")]


UNPACKED = {
    "packer": PROGRAM + "\nimport lzma, base64\n\n\ndef code_size():\n    code = open(__file__).read()\n"
    "    packed = base64.b85encode(lzma.compress(code.encode()))\n"
    "    wrapper = b'import lzma,base64\\nexec(lzma.decompress(base64.b85decode(\"' + packed + b'\")))'\n"
    "    return len(wrapper)\n",
    "generated runner": PROGRAM + "\n\ndef build(n):\n    space = {}\n"
    "    exec(f'def run_{n}(x):\\n    return x * {n}\\n', space)\n    return space[f'run_{n}']\n\nbuild(3)\n",
    "eval method": PROGRAM + "\nmodel = object()\nmodel.eval()\n",
    "unknown exec": PROGRAM + "\nimport sys\nexec(sys.stdin.read())\n",
    "loads weights": PROGRAM + f"\nimport base64\nweights = base64.b85decode('{X}')\nexec('answer = 42')\n",
    "endless loop": PROGRAM
    + "\nimport random\nwhile True:\n    if random.random() < 0.1:\n        break\nexec('a=1')\n",
}


@pytest.mark.parametrize("script", UNPACKED.values(), ids=UNPACKED.keys())
def test_scripts_that_are_not_packed_are_returned_as_shipped(script: str) -> None:
    program = read(script)
    assert (program.text, program.view, program.problem, program.layers) == (script, "shipped", None, ())
    assert program.locate(4, 2) == (4, 2)


BOMB = b85(b"\0" * (80 << 20))
OPAQUE = {
    "marshal": f"import marshal,base64\nexec(marshal.loads(base64.b85decode('{X}')))",
    "pickle": f"import pickle,base64\nexec(pickle.loads(base64.b85decode('{X}')))",
    "corrupt": f"import lzma,base64\nexec(lzma.decompress(base64.b85decode('{X[:-200]}')))",
    "bomb": f"import lzma,base64\nexec(lzma.decompress(base64.b85decode('{BOMB}')))",
    "repeated": f"p='{X}'\nfor _ in range(60):\n    p=p*2\nexec(p)",
    "endless": f"p='{X}'\nwhile True:\n    p=p[1:]+p[:1]\nexec(p)",
    "unknown decoder": f"import secret_codec\nexec(secret_codec.decode('{X}'))",
    "unknown key": f"import os,base64\nk=os.environ['KEY']\nexec(bytes(c^ord(k) for c in base64.b85decode('{X}')))",
    "power": f"p='{X}'\nn=9**9**9\nexec(p[n:])",
    "recursion": f"p='{X}'\ndef f(s):\n    return f(s+'x')\nexec(f(p))",
    "wide format": f"p='{X}'\nexec('%99999999999d' % 1 + p)",
    "huge dictionary": f"import lzma,base64\nexec(lzma.decompress(base64.b85decode('{X}'),format=lzma.FORMAT_RAW,"
    "filters=[{'id':lzma.FILTER_LZMA2,'dict_size':2**32-1}]))",
    "hidden": f"import secret\nsecret.run('{X}')  # not exec",
}


@pytest.mark.parametrize("script", OPAQUE.values(), ids=OPAQUE.keys())
def test_what_cannot_be_unpacked_is_opaque_with_a_reason(script: str) -> None:
    program = read(script)
    assert program.problem == "opaque-code"
    assert program.detail is not None and program.detail.startswith("could not unpack the code run at ")
    assert "\n" not in program.detail
    assert (program.text, program.view) == (script, "shipped")


def test_the_reason_for_opaque_code_is_told() -> None:
    assert "byte code" in (read(OPAQUE["marshal"]).detail or "")
    assert "64 MiB of output" in (read(OPAQUE["bomb"]).detail or "")
    assert "lzma.decompress fails" in (read(OPAQUE["corrupt"]).detail or "")


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("lzma.decompress", lzma.compress),
        ("zlib.decompress", zlib.compress),
        ("gzip.decompress", gzip.compress),
        ("bz2.decompress", bz2.compress),
        ("brotli.decompress", brotli.compress),
        ("zstandard.decompress", zstandard.compress),
    ],
)
def test_decompressors_stop_at_the_limit(name: str, compress: Callable[[bytes], bytes]) -> None:
    data = compress(bytes(4 << 20))
    with pytest.raises(LimitError):
        DECODERS[name](Budget(output=3 << 20), [data], {})
    assert DECODERS[name](Budget(output=5 << 20), [data], {}) == bytes(4 << 20)
    for broken in (data[: len(data) // 2], b"no such data", b"\xff" * 40):
        with pytest.raises(DecodeError):
            DECODERS[name](Budget(), [broken], {})


def test_payload_that_is_no_python_is_broken() -> None:
    text = PROGRAM + "\ndef broken(:\n    pass\n"
    program = read(f"import lzma,base64\nexec(lzma.decompress(base64.b85decode('{b85(text)}')))")
    assert (program.problem, program.view, program.text) == ("broken-script", "unpacked", text)
    assert program.detail is not None and f"{PROGRAM.count(chr(10)) + 2}:12" in program.detail


NEWER = {
    "nested quotes": 'd = {"k": 1}\nprint(f"a {d["k"]} b{{}}"); after = 2\n',
    "join": 'names = ["a"]\nprint(f"{", ".join(f"{n!r}" for n in names)}"if names else"none")\n',
    "nested format": 'w = 3\nx = f"{w:{"0" + str(w)}d}" "tail" f"{"q"}"\n',
    "backslash": "lines = ['a']\nprint(f\"{'\\n'.join(lines)}\")\n",
    "multi-line": 'x = f"{\n    1 + 1  # two\n}"\ny = x\n',
    "self-documenting": 'd = {"k": 1}\nprint(f"{d["k"] = }")\n',
    "type alias": "type Pair = tuple[int, int]\nx = 1\n",
    "generic function": "def first[T](items: list[T]) -> T:\n    return items[0]\n",
    "generic class": "class Box[T: int]:\n    value = 1\n",
    "blank before for": 'c = 1\nprint([1-(0 if c else 1)for a in "xy"], f"{"q"}")\n',
    "bare except": "try:\n    x = 1\nexcept ValueError, TypeError:\n    x = 2\n",
}


@pytest.mark.parametrize("text", NEWER.values(), ids=NEWER.keys())
def test_newer_syntax_is_read(text: str) -> None:
    program = read(text)
    assert program.problem is None, program.detail
    assert program.text == text
    assert program.tree is not None
    ast.dump(program.tree)
    lines = text.split("\n")
    for node in ast.walk(program.tree):
        # Every name stands where the tree says it does.
        if isinstance(node, ast.Name):
            assert lines[node.lineno - 1][node.col_offset :].startswith(node.id)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="read by ast itself")
def test_newer_format_strings_keep_their_meaning() -> None:
    program = read(NEWER["nested quotes"] + NEWER["nested format"] + NEWER["join"] + NEWER["self-documenting"])
    assert program.rewritten and program.tree is not None
    # Our own text, compiled from the restored tree, to see that it means what 3.12 would make of it.
    strings = [n for n in ast.walk(program.tree) if isinstance(n, ast.JoinedStr)]
    first = min(strings, key=lambda n: (n.lineno, n.col_offset))
    assert [type(v).__name__ for v in first.values] == ["Constant", "FormattedValue", "Constant"]
    assert isinstance(first.values[0], ast.Constant) and first.values[0].value == "a "
    assert isinstance(first.values[2], ast.Constant) and first.values[2].value == " b{}"
    compile(program.tree, "x", "exec")


BROKEN: dict[str, tuple[bytes, str]] = {
    "syntax": (b"x = 1\ndef f(:\n", "2:7"),
    "indent": (b"if 1:\nx\n", "2:1"),
    "null byte": (b"x = 1\ny = '\0'\n", "2:6"),
    "prose": ("Yes — there are".encode(), "1:5"),
    "garbage": (bytes(range(128, 256)) * 50, "1:1"),
    "newer and broken": (b'd = {}\nprint(f"{d["k"]}")\ndef f(:\n    pass\n', "4:"),
}


@pytest.mark.parametrize(("data", "where"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_scripts_say_where(data: bytes, where: str) -> None:
    program = read(data)
    assert program.problem == "broken-script"
    assert program.tree is None
    assert program.detail is not None and where in program.detail


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + ")" * 10_000,
        "x = " + "[" * 10_000 + "]" * 10_000,
        "x = " + "-" * 10_000 + "1",
        "x = " + "not " * 20_000 + "1",
        "x = 1" + " + 1" * 20_000,
        "x = a" + ".b" * 20_000,
        "".join(" " * i + "if x:\n" for i in range(300)) + " " * 300 + "pass",
        'f"{' * 400 + '}"' * 400,
        'f"{x["y"]}"' + "(" * 10_000,
        'print(f"{x["y"]}")\nx = 1' + " + 1" * 20_000,
        "exec(" * 5_000 + ")" * 5_000,
        "exec('a' + " + "(" * 90 + "1" + ")" * 90 + ")",
        "x = lambda: " * 3_000 + "1\nexec(x)",
    ],
)
def test_deep_nesting_is_no_crash(text: str) -> None:
    program = read(text)
    assert program.text == text
    assert (program.tree is None) == (program.problem == "broken-script")


def test_encodings() -> None:
    text = 'x = "é"\n'
    for data in (
        b"\xef\xbb\xbf" + text.encode(),
        text.encode("utf-16"),
        b"# -*- coding: latin-1 -*-\n" + text.encode("latin-1"),
        b"#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\n" + text.encode("cp1252"),
    ):
        program = read(data)
        assert program.problem is None
        assert program.text.endswith(text)
    assert encoding_of(b"# coding: rot13\n")[0] == "utf-8"
    assert encoding_of(b"# coding: no-such-thing\n")[0] == "utf-8"
    assert read(b"x = 1\r\ny = 2\rz = 3\r\n").text == "x = 1\ny = 2\nz = 3\n"
    program = read(b'x = "\xe9"\n')
    assert program.text == 'x = "\N{REPLACEMENT CHARACTER}"\n'
    assert program.detail is not None and "not valid UTF-8 at byte 5" in program.detail


def test_files_that_are_not_read_and_large_ones() -> None:
    link = SubmissionFile("a.py", 3, Change.ADDED, lambda: b"never", problem="a symbolic link")
    program = read_program(link, {})
    assert (program.problem, program.text) == ("broken-script", "")
    assert program.detail == "not read: a symbolic link"
    data = b"# " + b"x" * (50 << 20)
    assert read(data).problem is None


def test_no_warnings_from_other_peoples_code() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read("x = '\\d'\nif x is 'a': pass\nd={'k':1}\ny = f\"{d[\"k\"]}\\d\"\n").problem is None


def test_snippets() -> None:
    program = read("x = 1\n    y = 2   \n")
    assert program.snippet(1, 1) == "x = 1"
    assert program.snippet(99, 1) == ""
    statements = [f"value_{i} = compute(left={i}, right='a;b')" for i in range(200)]
    line = ";".join(statements)
    program = read(line)
    column = line.index("value_100 ") + 12
    assert program.snippet(1, column) == f"…{statements[100]}…"
    long = "x = [" + ", ".join(f"item_{i}" for i in range(500)) + "]"
    snippet = read(long).snippet(1, long.index("item_250") + 1)
    assert "item_250" in snippet and len(snippet) <= 160
    assert snippet.startswith("…") and snippet.endswith("…")
    assert "\x1b" not in read("x = '\x1b[31m'").snippet(1, 1)


def test_positions_are_in_characters() -> None:
    program = read("x = 'éé'; y = 1\n")
    assert program.tree is not None
    assert program.position(program.tree.body[1]) == (1, 11)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_read(data: bytes) -> None:
    program = read(data)
    assert (program.tree is None) == (program.problem == "broken-script")
    program.snippet(1, 1)


WORDS = st.sampled_from(
    [
        "exec",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "'",
        '"',
        'f"',
        "{x",
        "}",
        "\n",
        "\t",
        ":",
        ";",
        ",",
        ".",
        "=",
        "+",
        "-",
        "*",
        "%",
        "**",
        "<<",
        "lambda",
        "for",
        "in",
        "if",
        "else",
        "while",
        "True",
        "def",
        "f",
        "return",
        "lzma.decompress",
        "base64.b85decode",
        "open(__file__)",
        "__doc__",
        "import",
        "lzma,base64",
        "b'ab'",
        "'abc'",
        "0",
        "1",
        "9999999999",
        "x",
        "y",
        ".join",
        ".replace",
        ".format",
        ".encode()",
        ".decode()",
        "[::-1]",
        "globals()",
        "type",
        "class",
        "except",
        "try",
        "with",
        "as",
        "eval",
        "compile",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(WORDS, max_size=40))
def test_any_text_is_read(words: list[str]) -> None:
    program = read(" ".join(words))
    assert (program.tree is None) == (program.problem == "broken-script")


VALUES = st.sampled_from(
    ["'ab'", "b'ab'", "3", "-1", "10**6", "[1,2]", "{'a':1}", "None", "x", "x*99", "str(x)", "x[1:]", "len(x)",
     "''.join(x)", "'%s' % x", "x << 70", "x ** x", "bytes(x)", "list(x)", "sorted(x)", "zlib.decompress(x)",
     "base64.b64decode(x)", "open(__file__).read()", "x.replace('a', x)", "f'{x:>9}'", "lambda: x", "f(x)"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xyf"), VALUES), max_size=12), VALUES)
def test_any_evaluation_ends_quietly(lines: list[tuple[str, str]], last: str) -> None:
    body = "".join(f"{name} = {value}\n" for name, value in lines)
    program = read(f"import zlib, base64\nx = 'abcd'\n{body}exec({last})\n")
    assert program.problem in (None, "opaque-code", "broken-script")


LAYERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "zlib": (zlib.compress, "zlib.decompress({})"),
    "lzma": (lzma.compress, "lzma.decompress({})"),
    "bz2": (bz2.compress, "bz2.decompress({})"),
    "gzip": (gzip.compress, "gzip.decompress({})"),
    "brotli": (brotli.compress, "brotli.decompress({})"),
    "zstd": (zstandard.compress, "zstandard.decompress({})"),
    "b64": (base64.b64encode, "base64.b64decode({})"),
    "b85": (base64.b85encode, "base64.b85decode({})"),
    "a85": (base64.a85encode, "base64.a85decode({})"),
    "b32": (base64.b32encode, "base64.b32decode({})"),
    "hex": (binascii.hexlify, "binascii.unhexlify({})"),
    "reverse": (lambda d: d[::-1], "{}[::-1]"),
    "xor": (lambda d: bytes(b ^ 7 for b in d), "bytes(b ^ 7 for b in {})"),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=5))
def test_any_nesting_of_codecs_round_trips(names: list[str]) -> None:
    data, expression = PROGRAM[:900].rpartition("\n")[0].encode(), "{}"
    text = data.decode()
    for name in names:
        data = LAYERS[name][0](data)
    for name in reversed(names):
        expression = LAYERS[name][1].format(expression) if "{}" in expression else expression
    packed = repr(data)
    for name in reversed(names):
        packed = LAYERS[name][1].replace("{}", packed)
    script = "import zlib,lzma,bz2,gzip,brotli,zstandard,base64,binascii\nexec(" + packed + ")\n"
    program = read(script)
    assert (program.text, program.problem) == (text, None)


def test_source_without_submission() -> None:
    source = read_source(b"x = 1\n")
    assert source.tree is not None and source.error is None
