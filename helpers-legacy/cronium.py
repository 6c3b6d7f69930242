"""Cronium helper for Python 3.8 and later.

    import cronium
    cronium.input()                    the event's input
    cronium.event()                    what is known about the event
    cronium.output(data)               write output.json
    cronium.getVariable(key)           a variable's value, or None
    cronium.setVariable(key, value)    store a value; True, or False when that failed
    cronium.setCondition(condition)    write condition.json; the condition as a bool
    cronium.getCondition()             what setCondition set in this process, or None

`cronium.cronium` is an object with the same methods. Paths are relative: after os.chdir the files are looked for, and
created, in the new directory.
"""

import datetime
import json
import sys


def _read(path):
    """The JSON in the file; {} when the file is missing or is not JSON. Invalid UTF-8 reads as U+FFFD."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}


def _write(path, data):
    """Writes in place. What json.dump cannot serialise ends the text there: the part before stays in the file."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)


def _variables():
    """What variables.json holds now; {} unless that is an object."""
    document = _read("variables.json")
    return document if isinstance(document, dict) else {}


def _complain(doing, error):
    print("Error {}: {}".format(doing, error), file=sys.stderr)


class Cronium:
    def __init__(self):
        self._input = _read("input.json")
        self._event = _read("event.json")
        self._condition = None

    def input(self):
        return self._input

    def event(self):
        return self._event

    def output(self, data):
        try:
            _write("output.json", data)
        except Exception as error:
            _complain("writing output", error)

    def getVariable(self, key):
        return _variables().get(key)

    def setVariable(self, key, value):
        try:
            variables = _variables()
            variables[key] = value
            variables["__updated__"] = datetime.datetime.now().isoformat()
            _write("variables.json", variables)
            return True
        except Exception as error:
            _complain("setting variable", error)
            return False

    def setCondition(self, condition):
        self._condition = bool(condition)
        try:
            _write("condition.json", {"condition": self._condition})
        except Exception as error:
            _complain("setting condition", error)
        return self._condition

    def getCondition(self):
        return self._condition


cronium = Cronium()

input = cronium.input
event = cronium.event
output = cronium.output
getVariable = cronium.getVariable
setVariable = cronium.setVariable
setCondition = cronium.setCondition
getCondition = cronium.getCondition
