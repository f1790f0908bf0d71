"""Build the source distribution and the wheel twice from what git holds; the bytes must be equal.

Usage: python .ci/dist.py [FOLDER]     (dist/ if none is named; needs the extra `dist`)
"""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main(target: Path) -> None:
    """Build, compare, check with twine, and put the files into a folder."""
    time = subprocess.check_output(["git", "log", "-1", "--format=%ct"], cwd=ROOT, text=True)
    os.environ["SOURCE_DATE_EPOCH"] = time.strip()
    os.umask(0o022)  # the modes of files go into the wheel
    with tempfile.TemporaryDirectory() as work:
        first, second = (_build(Path(work, name), int(time)) for name in ("one", "two"))
        if first != second:
            raise SystemExit(f"two builds differ: {_digests(first)}, then {_digests(second)}")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name, content in first.items():
            (target / name).write_bytes(content)
    files = [str(target / name) for name in first]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True)
    print("\n".join(_digests(first)))


def _build(folder: Path, time: int) -> dict[str, bytes]:
    """Build from a copy of the last commit; return the files, name -> content."""
    source, built = folder / "source", folder / "built"
    source.mkdir(parents=True)
    archive = subprocess.check_output(["git", "archive", "HEAD"], cwd=ROOT)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(source, filter="data")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(source)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {
        path.name: _timeless(path, time) if path.name.endswith(".tar.gz") else path.read_bytes()
        for path in sorted(built.iterdir())
    }


def _timeless(path: Path, time: int) -> bytes:
    """Return a .tar.gz with one time and no owners; setuptools writes those of the build."""
    packed = io.BytesIO()
    with (
        tarfile.open(path) as old,
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=time, filename="") as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid = time, 0, 0
            member.uname = member.gname = ""
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return packed.getvalue()


def _digests(files: dict[str, bytes]) -> list[str]:
    return [f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in files.items()]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist"))
