"""The house rules, checked on the syntax tree: who may import whom, and who may do what.

The table is read from ARCHITECTURE.md, so that the page and the check can't disagree.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "pixeldojo"
FILES = sorted(SOURCE.rglob("*.py"))
MOST_LINES, MOST_FUNCTION_LINES = 500, 60
# The only places that load our own modules late: what is optional, or too heavy for a short command to wait for.
LAZY = {"db/open.py", "engines/engine.py", "cli/connect.py", "mcp/door.py", "opening.py"}


def _rooms() -> dict[str, set[str]]:
    """room → rooms it may import, from the table in ARCHITECTURE.md."""
    rows = re.findall(r"^\| `([\w/]+)` \|([^|]*)\|", (ROOT / "ARCHITECTURE.md").read_text(), re.M)
    return {room: set(re.findall(r"`([\w/]+)`", allowed)) for room, allowed in rows}


ROOMS = _rooms()


def _room(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[0] if parts[0] != "__init__" else "pixeldojo"


def _imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Every module of ours that the tree imports, as a dotted path below `pixeldojo`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pixeldojo":
            base = (node.module or "").split(".")[1:]
            for name in node.names:
                whole = SOURCE.joinpath(*base, name.name)
                is_module = whole.is_dir() or whole.with_suffix(".py").exists()
                yield ".".join([*base, name.name] if is_module or not base else base), node
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "pixeldojo":
                    yield ".".join(name.name.split(".")[1:]), node


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_downwards(path: Path) -> None:
    room = _room(path)
    assert room in ROOMS, f"{room} is missing in the table of ARCHITECTURE.md"
    wrong = []
    for module, _ in _imports(_tree(path)):
        target = module.split(".")[0]
        if target in (room, "") or (target == "__version__"):
            continue
        if target not in ROOMS[room]:
            wrong.append(f"{room} imports {module}")
        if room in ("api", "cli", "mcp", "console") and (module.endswith(".store") or module.startswith("db.")):
            wrong.append(f"the door {room} reaches into {module}")
    assert not wrong, wrong


def test_the_table_has_no_cycle_and_no_stale_row() -> None:
    assert set(ROOMS) == {_room(path) for path in FILES}
    left = {room: set(allowed) for room, allowed in ROOMS.items()}
    while left:
        free = {room for room, allowed in left.items() if not allowed & set(left)}
        assert free, f"a cycle among {sorted(left)}"
        left = {room: allowed for room, allowed in left.items() if room not in free}


def _names(path: Path) -> set[str]:
    """Dotted names used anywhere in a file: `os.environ`, `time.time`, `datetime.now`."""
    return {ast.unparse(node) for node in ast.walk(_tree(path)) if isinstance(node, ast.Attribute)}


def _libraries(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_who_may_do_what(path: Path) -> None:
    name, names, libraries = str(path.relative_to(SOURCE)), _names(path), _libraries(path)
    wall_clock = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"}
    assert name == "clock.py" or not names & wall_clock, "the wall clock is read in clock.py only"
    assert name == "settings.py" or not names & {"os.environ", "os.getenv"}, "the environment is read in settings.py"
    clients = {"httpx2", "httpx", "requests", "aiohttp", "urllib3", "httpcore2", "socket"}
    assert name in ("outbound.py", "app.py") or not libraries & clients, "HTTP clients and sockets are outbound.py's"
    drivers = {"sqlite3", "psycopg"}
    assert name.startswith("db/") or not libraries & drivers, "database drivers are db's"


SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM)\s+[\w*(,. ]+\b(FROM|VALUES|SET|WHERE|\()", re.S)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_sql_lives_in_stores(path: Path) -> None:
    if path.name == "store.py" or _room(path) == "db":
        return
    texts = [n.value for n in ast.walk(_tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    assert not [text for text in texts if SQL.search(text)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_size_and_shape(path: Path) -> None:
    tree, text = _tree(path), path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES, "a file of two rooms"
    assert not text.strip() or ast.get_docstring(tree), (
        "every module says what enters, what leaves, what it may not know"
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{node.name} has {length} lines"
            inner = [stmt for _, stmt in _imports(node)]
            assert not inner or str(path.relative_to(SOURCE)) in LAZY, f"{node.name} imports our own package late"
    banned = {"manager", "helper", "helpers", "utils", "common", "misc", "base"}
    assert path.stem not in banned


def test_no_package_registry_is_named() -> None:
    files = [*ROOT.glob("*.txt"), *ROOT.glob("*.toml"), *ROOT.glob("Makefile"), *ROOT.glob("sdks/*/package*.json")]
    for path in files:
        assert not re.search(r"https?://[\w.]*(pypi|npmjs|pythonhosted)", path.read_text()), path
