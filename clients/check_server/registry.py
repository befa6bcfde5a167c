"""The cases, in the order they were written."""

LEVELS = ("quick", "normal", "full")


class Case:
    def __init__(self, function, promise, level, needs, clients, limit, timed):
        self.function = function
        self.name = function.__name__.replace("_", "-")
        self.promise = promise
        self.level = level
        self.needs = needs
        self.clients = clients
        self.limit = limit
        self.timed = timed


class Registry:
    def __init__(self):
        self.cases = []

    def add(self, case):
        if any(known.name == case.name for known in self.cases):
            raise ValueError(f"two cases are called {case.name}")
        self.cases.append(case)


REGISTRY = Registry()


def case(promise, level="quick", needs=(), clients=1, limit=20, timed=None):
    """Register a function as a case. Its name, with dashes, is the case's name.

    promise  one line: what the server does, seen from outside
    level    "quick" runs always, "normal" unless --quick, "full" only with --full
    needs    what the server or this machine must have, or else the case is skipped:
             "concurrent" (not with --serial), "linux" (/proc), "ours" (the command line of
             this project's servers), or an option such as "--max-clients"
    clients  how many the server must take at once; compared with --capacity
    limit    seconds after which the case as a whole has failed
    timed    whether it measures time, so that nothing else should run beside it (default: cases
             from --also are taken to do so, ours not)
    """
    if level not in LEVELS:
        raise ValueError(f"no such level: {level}")
    if isinstance(needs, str):
        needs = (needs,)

    def register(function):
        REGISTRY.add(Case(function, promise, level, tuple(needs), clients, limit,
                          timed))
        return function

    return register
