#!/usr/bin/env python3
"""Makes an autograder package for Gradescope: package.py FILE.zip [COURSE.json]"""

import json
import pathlib
import shutil
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PARTS = "grade.py", "check-server.py", "grading", "check_server", "lib"
TIME = (2020, 1, 1, 0, 0, 0)    # the same files make the same package


def write(target, files):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as package:
        for name, file in files.items():
            entry = zipfile.ZipInfo(name, TIME)
            mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            with open(file, "rb") as source, package.open(entry, "w") as copy:
                shutil.copyfileobj(source, copy)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    course = pathlib.Path(sys.argv[2]) if sys.argv[2:] else ROOT / "clients/courses/echo.json"
    target = pathlib.Path(sys.argv[1])
    files = {"setup.sh": HERE / "image.sh", "run_autograder": HERE / "run_autograder",
             "clients/courses/echo.json": course}
    for part in PARTS:
        path = ROOT / "clients" / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            files[str(file.relative_to(ROOT))] = file
    data = json.loads(course.read_text(encoding="utf-8"))
    for part in data["parts"]:
        for stage in part["stages"]:
            files[stage["teaches"]] = ROOT / stage["teaches"]
    for also in data.get("also", []):
        files[f"clients/courses/{also}"] = course.parent / also
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, files)
    except OSError as error:
        sys.exit(f"package.py: cannot write {target}: {error.strerror}")
    print(f"Made {target}: {len(files)} files")


if __name__ == "__main__":
    main()
