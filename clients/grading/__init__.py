"""Stages, points and hints over the cases of check-server.py.

    course.py   reads a course: the cases of each stage, what they earn, their hints
    run.py      runs the stages on a server
    words.py    a failure as a person would explain it
    text.py     the report on a terminal
    files.py    the reports that machines read: JSON, Gradescope, GitHub, JUnit
    memory.py   what passed last time, and how many hints were shown
    command.py  the command line of grade.py
    begin.py    the command line of begin.py: starters, and exercises
    exercise.py our own steps with functions emptied
"""
