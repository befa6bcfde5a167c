#!/usr/bin/env python3
"""Makes an autograder package for Gradescope: package.py FILE.zip [COURSE.json]"""

import os
import pathlib
import shutil
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "clients"))

from check_server import cases  # noqa: E402, F401  importing them registers them
from check_server.command import REGISTRY, load     # noqa: E402
from grading.course import Invalid, read            # noqa: E402

PARTS = "grade.py", "check-server.py", "grading", "check_server", "lib"
TIME = (2020, 1, 1, 0, 0, 0)    # the same files make the same package


def write(target, files):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as package:
        for name, file in files.items():
            entry = zipfile.ZipInfo(name, TIME)
            mode = 0o755 if os.stat(file).st_mode & 0o100 else 0o644
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            with open(file, "rb") as source, package.open(entry, "w") as copy:
                shutil.copyfileobj(source, copy)


def fail(message, status):
    print(message, file=sys.stderr)
    sys.exit(status)


def of_course(path):
    """The files that a course needs: {name in the package: file}"""
    also = []

    def load_and_note(file):
        load(file, timed=False)
        also.append(file)

    try:
        course = read(str(path), REGISTRY, load_and_note)
    except (Invalid, OSError) as error:
        fail(f"package.py: {error}", 2)
    files = {"clients/courses/echo.json": path}
    for stage in course.stages:
        for page in stage.teaches:
            files[os.path.normpath(page)] = ROOT / page
    for file in also:
        name = os.path.relpath(file, path.parent)
        if name.startswith(".."):
            fail(f"package.py: {path}: also: {name} must be in the folder of the course", 2)
        files[f"clients/courses/{name}"] = file
    return files


def main():
    if len(sys.argv) not in (2, 3):
        fail(__doc__, 2)
    course = pathlib.Path(sys.argv[2]) if sys.argv[2:] else ROOT / "clients/courses/echo.json"
    target = pathlib.Path(sys.argv[1])
    files = {"setup.sh": HERE / "image.sh", "run_autograder": HERE / "run_autograder",
             **of_course(course)}
    for part in PARTS:
        path = ROOT / "clients" / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            files[str(file.relative_to(ROOT))] = file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, files)
    except OSError as error:
        fail(f"package.py: cannot write {target}: {error.strerror}", 1)
    print(f"Made {target}: {len(files)} files")


if __name__ == "__main__":
    main()
