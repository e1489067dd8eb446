from pathlib import Path

import pytest

from tests.packaging.building import run, sources, wheel


@pytest.fixture(scope="session")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a repository whose commit has the tag v9.8.7."""
    copy = sources(tmp_path_factory.mktemp("tagged"))
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    run("git", "init", "-q", cwd=copy)
    run("git", "add", "-A", cwd=copy)
    run("git", *identity, "commit", "-q", "-m", "a release", cwd=copy)
    run("git", *identity, "tag", "-a", "v9.8.7", "-m", "a release", cwd=copy)
    return wheel(copy, tmp_path_factory.mktemp("wheel"))
