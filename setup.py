"""Put the example plug-in into the wheel, where `new-plugin` finds its template."""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithTemplate(build_py):
    """Build of the packages, with the example beside the science."""

    def run(self) -> None:
        """Copy packages and example."""
        super().run()
        # An editable install has the example itself.
        if not self.editable_mode:
            made = ignore_patterns("__pycache__", "*.egg-info", "build")
            place = Path(self.build_lib, "gigatok", "template")
            copytree("examples/plugin", place, ignore=made, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithTemplate})
