"""Plug-ins: how they are found, told apart, and undone where they fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gigatok import plugins
from gigatok.names import METRICS, quantity
from gigatok.plugins import PluginError, code_hash, load, owner, owner_of

METRIC = """
from gigatok.names import Metric, register

register(Metric("{name}", "brightness", "cd/m2", digits=1))
"""


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a test registers."""
    monkeypatch.setattr(plugins, "LOADED", {})
    before = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(before)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_registers_what_it_offers(tmp_path: Path) -> None:
    write(tmp_path / "bright.py", METRIC.format(name="brightness"))
    (plugin,) = load(["./bright.py"], tmp_path)
    assert plugin.entries == {"metric": ("brightness",)}
    assert owner_of("metric", "brightness") == plugin
    assert owner_of("metric", "rfid") is None
    assert quantity("brightness").title == "brightness (cd/m2)"
    assert owner(plugin.package) == owner(f"{plugin.package}.inside") == plugin
    assert owner("gigatok.names") is None


def test_a_file_is_imported_once(tmp_path: Path) -> None:
    write(tmp_path / "bright.py", METRIC.format(name="brightness"))
    assert load(["./bright.py", str(tmp_path / "bright.py")], tmp_path) == 2 * load(
        ["bright.py"], tmp_path
    )


def test_an_edited_file_replaces_what_it_registered(tmp_path: Path) -> None:
    write(tmp_path / "bright.py", METRIC.format(name="brightness"))
    (before,) = load(["./bright.py"], tmp_path)
    write(tmp_path / "bright.py", METRIC.format(name="darkness"))
    (after,) = load(["./bright.py"], tmp_path)
    assert after.identity != before.identity
    assert "darkness" in METRICS
    assert "brightness" not in METRICS


def test_identity_is_the_content(tmp_path: Path) -> None:
    here = write(tmp_path / "a" / "fsq.py", "x = 1\n")
    there = write(tmp_path / "b" / "renamed.py", "x = 1\n")
    assert code_hash(here) == code_hash(there) != code_hash(write(tmp_path / "c.py", "x = 2\n"))
    package = write(tmp_path / "d" / "__init__.py", "x = 1\n").parent
    whole = code_hash(package)
    write(package / "inner.py", "y = 2\n")
    assert code_hash(package) != whole


def test_a_package_of_several_files(tmp_path: Path) -> None:
    write(tmp_path / "lab" / "__init__.py", "from . import inner\n")
    write(tmp_path / "lab" / "inner.py", METRIC.format(name="brightness"))
    (plugin,) = load(["./lab"], tmp_path)
    assert plugin.entries == {"metric": ("brightness",)}


@pytest.mark.heavy
def test_a_module_without_a_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    file = write(tmp_path / "my_plugin_lab" / "metrics.py", METRIC.format(name="brightness"))
    write(tmp_path / "my_plugin_lab" / "__init__.py", "")
    (plugin,) = load(["my_plugin_lab.metrics"], Path())
    assert plugin.identity == code_hash(file)
    assert owner("my_plugin_lab.metrics") == plugin


@pytest.mark.heavy
def test_the_identity_of_a_distribution_is_its_version() -> None:
    # Any installed distribution whose module registers nothing will do.
    from importlib.metadata import version

    (plugin,) = load(["filelock"], Path())
    assert plugin.identity == f"filelock {version('filelock')}"
    assert plugin.entries == {}


FAILURES = {
    "import nowhere_to_be_found\n": r"ModuleNotFoundError: No module named 'nowhere_to_be_found'",
    "x = 1\n1 / 0\n": r"ZeroDivisionError: division by zero \(.*broken\.py, line 2\)",
    "def f(:\n": r"SyntaxError: .*broken\.py, line 1",
    METRIC.format(
        name="rfid"
    ): r"ValueError: there is a metric 'rfid' already; .* \(.*broken\.py, line 8\)",
}


@pytest.mark.parametrize("text", FAILURES)
def test_a_failure_names_the_plugin_and_leaves_nothing(tmp_path: Path, text: str) -> None:
    write(tmp_path / "broken.py", METRIC.format(name="brightness") + text)
    pattern = FAILURES[text].replace("line 2", "line 6").replace("line 1", "line 5")
    with pytest.raises(PluginError, match=rf"^plug-in \./broken\.py: {pattern}"):
        load(["./broken.py"], tmp_path)
    assert "brightness" not in METRICS
    # Once it is mended it can be loaded.
    write(tmp_path / "broken.py", METRIC.format(name="brightness"))
    load(["./broken.py"], tmp_path)
    assert "brightness" in METRICS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "./nothing.py",
            r"plug-in \./nothing\.py: no such file \(.*nothing\.py\); a plug-in is a ",
        ),
        ("./empty", r"plug-in \./empty: no __init__\.py in it"),
        ("my_lab.nothing", r"plug-in my_lab\.nothing: no module 'my_lab' can be imported here"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PluginError, match=message):
        load([name], tmp_path)


@pytest.mark.heavy
def test_broken_installed_plugins_are_reported_and_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.installed.cache_clear()
    for name, text in {"good_lab": METRIC.format(name="brightness"), "bad_lab": "1 / 0\n"}.items():
        write(tmp_path / f"{name}.py", text)
        points = f"[{plugins.GROUP}]\n{name} = {name}\n"
        write(tmp_path / f"{name}-1.0.dist-info" / "entry_points.txt", points)
        write(tmp_path / f"{name}-1.0.dist-info" / "METADATA", f"Name: {name}\nVersion: 1.0\n")
    plugins.load_installed()
    plugins.load_installed()
    (warning,) = caplog.messages
    assert warning.startswith("plug-in bad_lab: ZeroDivisionError")
    assert "brightness" in METRICS
    plugins.installed.cache_clear()


def test_a_registry_never_replaces_an_entry() -> None:
    fruits: plugins.Registry[int] = plugins.Registry("fruit")
    assert fruits.add("apple", 1) == 1
    with pytest.raises(ValueError, match="there is a fruit 'apple' already; choose another name"):
        fruits.add("apple", 2)
    assert fruits == {"apple": 1}
